package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

// bench implements testing.TB, which test fixtures require, outside a test. A fatal error
// is a panic with a failure.
type bench struct {
	testing.TB
	ctx context.Context

	mu      sync.Mutex
	cleanup []func()
}

// failure is the error with which a fixture failed.
type failure struct{ error }

func (b *bench) Helper()                   {}
func (b *bench) Name() string              { return "torture" }
func (b *bench) Context() context.Context  { return b.ctx }
func (b *bench) Fatal(a ...any)            { panic(failure{errors.New(fmt.Sprintln(a...))}) }
func (b *bench) Fatalf(f string, a ...any) { panic(failure{fmt.Errorf(f, a...)}) }
func (b *bench) Error(a ...any)            { b.Fatal(a...) }
func (b *bench) Errorf(f string, a ...any) { b.Fatalf(f, a...) }
func (b *bench) Skip(a ...any)             { b.Fatal(a...) }
func (b *bench) Skipf(f string, a ...any)  { b.Fatalf(f, a...) }
func (b *bench) Failed() bool              { return false }
func (b *bench) Log(...any)                {}
func (b *bench) Logf(string, ...any)       {}

func (b *bench) Cleanup(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cleanup = append(b.cleanup, f)
}

func (b *bench) TempDir() string {
	dir, err := os.MkdirTemp("", "snapd-torture")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// close runs the cleanup functions, last one first.
func (b *bench) close() {
	for i := len(b.cleanup) - 1; i >= 0; i-- {
		b.cleanup[i]()
	}
	b.cleanup = nil
}

// fastDir creates a temporary directory, in memory if possible, because thousands of data
// directories are written and fsynced in it.
func fastDir(tb testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "snapd-torture")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
