// Command snapctl is the hand of a release manager on snapd: it asks the
// daemon over its control socket, and works on exports, images, kits and keys
// by itself.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	code := newProgram().run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
