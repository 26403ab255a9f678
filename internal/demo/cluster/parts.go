package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
)

// parts replaces the testing.TB that test fixtures need. A fatal error panics with a
// failure, and close runs the cleanups.
type parts struct {
	testing.TB
	ctx     context.Context
	cleanup []func()
}

// failure is the error that stopped a part.
type failure struct{ error }

func (p *parts) Helper()                   {}
func (p *parts) Name() string              { return "cluster" }
func (p *parts) Context() context.Context  { return p.ctx }
func (p *parts) Fatal(a ...any)            { panic(failure{errors.New(fmt.Sprint(a...))}) }
func (p *parts) Fatalf(f string, a ...any) { panic(failure{fmt.Errorf(f, a...)}) }
func (p *parts) Error(a ...any)            { fmt.Fprintln(os.Stderr, a...) }
func (p *parts) Errorf(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...) }
func (p *parts) Skip(a ...any)             { p.Fatal(a...) }
func (p *parts) Skipf(f string, a ...any)  { p.Fatalf(f, a...) }
func (p *parts) Log(...any)                {}
func (p *parts) Logf(string, ...any)       {}
func (p *parts) Failed() bool              { return false }
func (p *parts) Cleanup(f func())          { p.cleanup = append(p.cleanup, f) }

func (p *parts) TempDir() string {
	dir, err := os.MkdirTemp("", "snapd-cluster")
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// close runs the cleanups in reverse order.
func (p *parts) close() {
	for i := len(p.cleanup) - 1; i >= 0; i-- {
		p.cleanup[i]()
	}
}
