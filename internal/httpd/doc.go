// Package httpd speaks HTTP for snapd: the public tree, which only reads, and
// the control API on the Unix socket, through which everything changes.
//
// The public tree ([Server.Public]) is dispatched by hand before any router,
// because most requests are for small files and a router costs more than they
// do. What stands under a URL is looked up once an epoch (mirror.Engine.Epoch)
// and small bodies stay in a bounded memory cache; large ones go out by
// sendfile(2). No store transaction is open while bytes move to a client.
//
// The control API ([Server.Control]) is one path for each verb of package
// control: this package decodes the request and writes progress, result and
// error as JSON lines.
package httpd
