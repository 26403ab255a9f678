package main

import (
	"context"
	"os"
	"os/exec"
)

// runIUK measures kits and images in comparison with overlay mounts, rsync and
// mksquashfs. The script prints its own table, because it works on trees of a real
// system, which it makes once, as root.
func runIUK(ctx context.Context, _ *bench) error {
	cmd := exec.CommandContext(ctx, "sh", "internal/iuk/bench.sh")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
