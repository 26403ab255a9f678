package main

import "io"

// readAll reads at most 64 MiB of a response.
func readAll(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, 64<<20)) }
