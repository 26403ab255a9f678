package main

import "context"

func runHistory(context.Context, *bench) error { return nil }
func runFiles(context.Context, *bench) error   { return nil }
func runRPM(context.Context, *bench) error     { return nil }
