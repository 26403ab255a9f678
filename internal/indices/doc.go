// Package indices recreates the package indices of old generations, so that a generation
// costs only its changes and not its indices.
//
// An index consists of stanzas, which the metadata contains, and the bytes between them.
// A generation stores their order as a blob, which is a difference to the order of an
// earlier generation. For an index without stanzas, such as contents or translations, the
// blob contains the text that is not in the earlier index. The plain index is written
// from the order. A compressed variant is made from the plain index by the program that
// upstream used. [Compactor] does so once, compares every byte, and only then removes the
// variant from the generation. [Store] does so whenever a client opens a blob that was
// removed this way.
//
// The digests are those that upstream signed, so that no wrong bytes can be served: if
// the present version of the program writes other bytes, clients get an error for the
// compressed variant, and use the plain one.
package indices
