// Package indices makes the package indices of old generations again, so that a
// generation costs its changes and not its indices.
//
// An index is stanzas, which the metadata has, and the bytes between them. A
// generation keeps their order as a blob, which is a difference to the order of an
// earlier one. For an index without stanzas, as of contents or translations, the blob
// has the text that the earlier one does not have. The plain index is written from it, and a compressed variant by the
// program that upstream compressed it with. [Compactor] does so once, compares every
// byte, and only then lets the generation give up its variant; [Store] does so
// whenever somebody opens a blob that was given up.
//
// The digests are those that upstream signed, so that nothing wrong can be served:
// if the program of today writes other bytes, clients get an error for the compressed
// variant, and take the plain one.
package indices
