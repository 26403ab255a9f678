// Package reveal defines the token that opens a remote.URL. The compiler lets
// only packages below internal/fetch import it, so no other package can read the
// secret parts of a URL.
package reveal

// Token is the argument of remote.URL.Full. Its field keeps other packages from
// passing a literal of the same type.
type Token struct{ _ struct{} }
