// Package httpd speaks HTTP for snapd: the public tree, which only reads, and
// the control API on the Unix socket, through which everything changes.
//
// The public tree ([Server.Public]) is dispatched by hand before any router,
// because most requests are for small files and a router costs more than they
// do. Package catalog says what a path stands for; that is looked up once an epoch
// (catalog.Catalog.Epoch). body.go has the ways to send a body: small ones stay in a
// bounded memory cache, large ones are sent by sendfile(2). Package fastfile answers
// plain requests for small files before net/http sees them.
//
// The control API ([Server.Control]) is one path for each verb of package
// control: this package decodes the request and writes progress, result and
// error as JSON lines.
package httpd
