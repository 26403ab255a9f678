package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/console"
	"example.org/snapd/internal/daemon"
	"example.org/snapd/internal/migrate"
	"example.org/snapd/internal/mirror"
)

// output prints all output of snapd's commands.
type output struct {
	out  *bufio.Writer
	err  io.Writer
	json bool
	mu   sync.Mutex // of progress
	bars *console.Bars
}

func newOutput(out, errs io.Writer, getenv func(string) string) *output {
	return &output{out: bufio.NewWriter(out), err: errs, bars: console.NewBars(errs, getenv)}
}

// progress reports the progress of a command.
func (o *output) progress(p api.Progress) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.json:
		o.document(struct {
			Progress api.Progress `json:"progress"`
		}{p})
		o.out.Flush()
	case o.bars != nil:
		o.bars.Update(p)
	}
}

func (o *output) endProgress() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bars.End()
}

// document prints a line of JSON.
func (o *output) document(v any) {
	enc := json.NewEncoder(o.out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // finish reports write errors
}

// result prints a result as JSON or, without --json, with human.
func (o *output) result(v any, human func()) {
	o.endProgress()
	if o.json {
		o.document(v)
		return
	}
	human()
}

// failure is the error of a command that did only part of its work.
type failure struct {
	exit      int
	msg, hint string
}

func (f *failure) Error() string { return f.msg }

// usageError is an error in the command line.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// finish prints the outcome and returns the exit code.
func (o *output) finish(ctx context.Context, err error) int {
	o.endProgress()
	exit, hint := api.ExitOK, ""
	var done *failure
	if errors.As(err, &done) {
		exit, hint = done.exit, done.hint
	} else if err != nil {
		var e api.Error
		e, hint = describe(ctx, err)
		exit = e.Exit
		err = &e
		if o.json {
			o.document(map[string]*api.Error{"error": &e})
		}
	}
	if ferr := o.out.Flush(); ferr != nil && err == nil {
		exit, err = api.ExitFailed, fmt.Errorf("write output: %w", ferr)
	}
	if err != nil {
		fmt.Fprintln(o.err, "snapd: error:", console.CleanLines(err.Error()))
	}
	if hint != "" {
		fmt.Fprintln(o.err, "snapd: hint:", hint)
	}
	return exit
}

// hinted is an error with a hint for the next step.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// describe returns the message, exit code and hint for an error.
func describe(ctx context.Context, err error) (e api.Error, hint string) {
	var own *api.Error
	var wrong *usageError
	if h := (*hinted)(nil); errors.As(err, &h) {
		hint = h.hint
	}
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return api.Error{Code: api.CodeInterrupted, Message: "interrupted", Exit: api.ExitInterrupted}, ""
	case errors.As(err, &wrong):
		return api.Error{Code: api.CodeUsage, Message: err.Error(), Exit: api.ExitUsage}, "snapd --help"
	case errors.As(err, &own):
		return *own, hint
	case errors.Is(err, backup.ErrRestoring):
		return api.Error{Code: api.CodeInUse, Message: err.Error(), Exit: api.ExitFailed}, "complete it with: snapd restore DIR"
	case errors.Is(err, migrate.ErrIncomplete):
		return api.Error{Code: api.CodeInUse, Message: err.Error(), Exit: api.ExitFailed}, "complete it with the same command: snapd --config SOURCE migrate --to CONFIG"
	case errors.Is(err, daemon.ErrPort):
		return api.Error{Code: api.CodeInUse, Message: err.Error(), Exit: api.ExitFailed}, "stop that program, or choose another address in the configuration: listen in [server], or in [api] for the control API"
	case errors.Is(err, mirror.ErrClock):
		return api.Error{Code: api.CodeClock, Message: err.Error(), Exit: api.ExitFailed}, "set the system clock, then start snapd again"
	case errors.Is(err, daemon.ErrRunning):
		return api.Error{Code: api.CodeInUse, Message: err.Error(), Exit: api.ExitFailed}, "stop it first, or give this one another data_dir"
	case errors.Is(err, config.ErrInvalid):
		return api.Error{Code: api.CodeUsage, Message: err.Error(), Exit: api.ExitFailed}, "see config.example.toml for every key"
	}
	return api.Error{Code: "failed", Message: err.Error(), Exit: api.ExitFailed}, hint
}
