// Package rpmmd reads and writes rpm-md repositories' metadata: repomd.xml, the
// package lists (primary, filelists, other), comps, updateinfo, modules,
// treeinfo, metalinks and mirror lists.
//
// There is no specification of rpm-md; what createrepo_c writes and what
// librepo, libsolv and dnf read is the format. The metadata are untrusted input:
// every reader here is bounded, refuses document types and entities, and
// names what it found where it expected something else.
//
// Derived metadata are made of the bytes that upstream wrote: readers of lists
// return the bytes of each element, and the cutters copy
// those that they keep.
package rpmmd
