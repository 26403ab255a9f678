// Package client is a client of snapd's control API: snapctl uses it, and other
// programs may.
//
// [Local] talks to the control socket, [Remote] to a server, with a token that
// `snapctl token create` made. Each verb of the API is a method; [Client.Call] and
// [Client.Send] run a verb by its name, also one that this version does not know.
//
// A verb that fails returns an [*Error], whose Code is stable. Freezes, syncs,
// verifications and imports may take long; their methods follow the server's job, also
// after a lost connection, and report its progress. Cancelling the context cancels the job,
// unless others wait for it.
package client
