// Package reveal holds the token that opens an remote.URL. The compiler lets
// only packages below internal/fetch import it, so that nothing else can read
// the secret parts of a URL.
package reveal

// Token is the argument of remote.URL.Full. Its field keeps other packages
// from passing a literal of the same shape.
type Token struct{ _ struct{} }
