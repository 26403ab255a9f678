// Command snapctl controls snapd over its control socket or over the network. It
// handles exports, images, upgrade kits and keys itself.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"example.org/snapd/internal/buildenv"
)

func main() {
	buildenv.Helper()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills snapctl
	code := newProgram().run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
