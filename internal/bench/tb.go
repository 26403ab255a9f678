package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
)

// fixtures replaces the testing.TB that test servers require. A fatal error panics with a
// failure, and close runs the cleanups.
type fixtures struct {
	testing.TB
	ctx     context.Context
	dir     string
	cleanup []func()
}

// failure is the error with which a fixture failed.
type failure struct{ error }

func (f *fixtures) Helper()                      {}
func (f *fixtures) Name() string                 { return "bench" }
func (f *fixtures) Context() context.Context     { return f.ctx }
func (f *fixtures) Fatal(a ...any)               { panic(failure{errors.New(fmt.Sprintln(a...))}) }
func (f *fixtures) Fatalf(text string, a ...any) { panic(failure{fmt.Errorf(text, a...)}) }
func (f *fixtures) Error(a ...any)               { f.Fatal(a...) }
func (f *fixtures) Errorf(text string, a ...any) { f.Fatalf(text, a...) }
func (f *fixtures) Skip(a ...any)                { f.Fatal(a...) }
func (f *fixtures) Skipf(text string, a ...any)  { f.Fatalf(text, a...) }
func (f *fixtures) Failed() bool                 { return false }
func (f *fixtures) Log(...any)                   {}
func (f *fixtures) Logf(string, ...any)          {}
func (f *fixtures) Cleanup(g func())             { f.cleanup = append(f.cleanup, g) }

func (f *fixtures) TempDir() string {
	dir, err := os.MkdirTemp(f.dir, "fixture-")
	if err != nil {
		f.Fatal(err)
	}
	return dir
}

// end must be deferred. It runs the cleanups and turns the failure of a fixture into an
// error.
func (f *fixtures) end(err *error) {
	defer f.close()
	switch p := recover().(type) {
	case nil:
	case failure:
		*err = p
	default:
		panic(p)
	}
}

// close runs the cleanups in reverse order.
func (f *fixtures) close() {
	for i := len(f.cleanup) - 1; i >= 0; i-- {
		f.cleanup[i]()
	}
	f.cleanup = nil
}
