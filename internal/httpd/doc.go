// Package httpd serves HTTP: the read-only public tree, and the control API on the
// Unix socket and over the network, through which all changes are made.
//
// The public tree ([Server.Public]) is dispatched by hand before any router,
// because most requests are for small files and a router would cost more than
// serving them. Package catalog resolves paths; its results are remembered for
// one epoch (catalog.Catalog.Epoch). body.go has the ways to send a body: small
// files come from a bounded memory cache, large ones are sent with sendfile(2).
// Package fastfile answers simple requests for small files before net/http sees
// them.
//
// The control API ([Server.Control] on the socket, [Server.API] over the network) has
// one path for each verb of package control. This package decodes the request, checks
// the caller's role, and answers with JSON: the result, an error, or the job of long
// work, whose progress is a stream of events.
package httpd
