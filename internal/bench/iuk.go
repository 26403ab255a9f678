package main

import (
	"context"
	"os"
	"os/exec"
)

// runIUK compares kits and images with overlay mounts, rsync and mksquashfs. It runs a
// script, which prints its own table. The script needs root: it first builds trees of a
// real system.
func runIUK(ctx context.Context, _ *bench) error {
	cmd := exec.CommandContext(ctx, "sh", "internal/iuk/bench.sh")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
