package main

import (
	"context"
	"os"
	"os/exec"
)

// runIUK times kits and images beside overlay mounts, rsync and mksquashfs. The
// script prints its own table: its work is on trees of a real system, which it
// makes once, as root.
func runIUK(ctx context.Context, _ *bench) error {
	cmd := exec.CommandContext(ctx, "sh", "internal/iuk/bench.sh")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
