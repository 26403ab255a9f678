// Package client is a client of snapd's control API, for snapctl and other programs.
//
// [Local] connects to the control socket, and [Remote] to a server over the network,
// with a token from `snapctl token create`. Each verb of the API is a method.
// [Client.Call] and [Client.Send] run a verb by its name, even one that this version of
// the package does not have.
//
// A verb that fails returns an [*Error], whose Code is stable. Freezes, syncs,
// verifications and imports may take long. Their methods follow the server's job, even
// after the connection was lost, and report its progress. Cancelling the context
// cancels the job, unless other clients wait for it too.
package client
