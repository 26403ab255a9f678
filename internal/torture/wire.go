package main

import "io"

// readAll reads an answer of bounded size.
func readAll(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, 64<<20)) }
