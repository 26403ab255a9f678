// Package rpmmd reads and writes the metadata of rpm-md repositories: repomd.xml, the
// package lists (primary, filelists, other), comps, updateinfo, modules,
// treeinfo, metalinks and mirror lists.
//
// rpm-md has no specification: the format is defined by what createrepo_c writes and
// what librepo, libsolv and dnf read. The metadata are untrusted input. All readers
// have limits and refuse document types and entities, and their errors say what was
// found and what was expected.
//
// Derived metadata consist of the bytes that upstream wrote: readers of lists return
// the bytes of each element, and functions that reduce metadata copy the bytes that
// they keep.
package rpmmd
