package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/console"
)

// A ui prints all output of snapctl: results on out, and errors, hints and progress
// bars on err.
type ui struct {
	out   *bufio.Writer
	err   io.Writer
	json  bool
	color bool // on err
	// mu is held while progress is reported, which may happen in several
	// goroutines. All of them end before a result is printed.
	mu   sync.Mutex
	bars *console.Bars
	// failed is the first error in writing to out; flush returns it.
	failed error
}

// newUI returns a ui, which prints progress bars and colours only on terminals.
func newUI(out, errOut io.Writer, getenv func(string) string) *ui {
	u := &ui{out: bufio.NewWriter(out), err: errOut}
	u.bars = console.NewBars(errOut, getenv)
	u.color = u.bars.Colors()
	return u
}

func (u *ui) flush() error {
	if err := u.out.Flush(); err != nil && u.failed == nil {
		u.failed = err
	}
	if u.failed != nil {
		return fmt.Errorf("write output: %w", u.failed)
	}
	return nil
}

// document prints a JSON document on one line.
func (u *ui) document(v any) {
	enc := json.NewEncoder(u.out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil && u.failed == nil {
		u.failed = err
	}
}

// show prints a result as JSON or, without --json, with human.
func show[R any](u *ui, r *R, human func(*R)) {
	u.endProgress()
	if u.json {
		u.document(r)
		return
	}
	human(r)
}

// text prints bytes unchanged.
func (u *ui) text(s string) { u.out.WriteString(s) }

// printf prints text for people. It removes control characters from string arguments.
func (u *ui) printf(format string, args ...any) {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = clean(s)
		}
	}
	fmt.Fprintf(u.out, format, args...)
}

// note prints a remark to standard error.
func (u *ui) note(format string, args ...any) {
	u.endProgress()
	u.say("", fmt.Sprintf(format, args...))
}

// failure prints the final message of a command that failed.
func (u *ui) failure(msg, hint string) {
	u.say("error", strings.TrimPrefix(msg, "usage: ")) // the exit code shows that
	if hint != "" {
		u.say("hint", hint)
	}
}

// warning prints an error that does not end the command.
func (u *ui) warning(format string, args ...any) {
	u.endProgress()
	u.say("warning", fmt.Sprintf(format, args...))
}

func (u *ui) say(label, msg string) {
	var b strings.Builder
	b.WriteString("snapctl: ")
	if label != "" {
		colour := map[string]string{"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "hint": "\x1b[1;36m"}[label]
		if u.color {
			b.WriteString(colour + label + ":\x1b[0m ")
		} else {
			b.WriteString(label + ": ")
		}
	}
	b.WriteString(strings.ReplaceAll(cleanLines(msg), "\n", "\n  "))
	b.WriteByte('\n')
	io.WriteString(u.err, b.String())
}

// table prints rows in columns; the first row is the heading.
func (u *ui) table(rows ...[]string) {
	w := tabwriter.NewWriter(u.out, 0, 8, 2, ' ', 0)
	for _, r := range rows {
		for i, c := range r {
			if i > 0 {
				io.WriteString(w, "\t")
			}
			if c == "" {
				c = "-"
			}
			io.WriteString(w, clean(c))
		}
		io.WriteString(w, "\n")
	}
	w.Flush()
}

// fields prints "Name:  value" lines, and leaves out those without a value.
func (u *ui) fields(pairs ...string) {
	w := tabwriter.NewWriter(u.out, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", pairs[i], clean(pairs[i+1]))
		}
	}
	w.Flush()
}

// heading separates parts of a long result.
func (u *ui) heading(s string) { u.printf("\n%s\n", s) }

// clean, cleanLines and bytesText have short names because nearly every line uses
// them.
func clean(s string) string      { return console.Clean(s) }
func cleanLines(s string) string { return console.CleanLines(s) }
func bytesText(n int64) string   { return console.Bytes(n) }

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func timePtr(t *time.Time) string {
	if t == nil {
		return ""
	}
	return timeText(*t)
}

// count returns a number with its noun.
func count[N int | int64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatInt(int64(n), 10) + " " + many
}

func short(digest string) string {
	if len(digest) > 12 {
		return digest[:12]
	}
	return digest
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// detail prints the details of an error from snapd.
func (u *ui) detail(e *api.Error) {
	var r api.FreezeResult
	if decodeDetail(e, &r) && (r.Report != nil || r.Changes != nil || len(r.Broken) > 0) {
		u.report(r.Report, r.DryRun)
		if r.Changes != nil {
			u.diff(r.Changes)
		}
		u.broken(r.Broken)
		return
	}
	var rep api.Report
	if decodeDetail(e, &rep) && len(rep.Entries) > 0 {
		u.report(&rep, false)
		return
	}
	var edit api.MirrorEdit
	if decodeDetail(e, &edit) && edit.Lines != "" {
		u.text(cleanLines(edit.Lines))
		return
	}
	var broken []api.Problem
	if decodeDetail(e, &broken) {
		u.broken(broken)
	}
}

// progress reports the progress of a long operation.
func (u *ui) progress(p api.Progress) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.json:
		u.document(struct {
			Progress api.Progress `json:"progress"`
		}{p})
		// Print lines of a log at once.
		if err := u.out.Flush(); err != nil && u.failed == nil {
			u.failed = err
		}
	case u.bars != nil:
		u.bars.Update(p)
	}
}

// steps reports the progress of work that is counted in steps.
func (u *ui) steps(task, phase string) func(done, total int64) {
	var mu sync.Mutex
	var last time.Time
	return func(done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if now.Sub(last) < 100*time.Millisecond {
			return
		}
		last = now
		u.progress(api.Progress{Task: task, Phase: phase, Files: done, FilesTotal: total})
	}
}

// packed reports how much of an image has been packed.
func (u *ui) packed(task string) func(done int64) {
	var mu sync.Mutex
	var last time.Time
	return func(done int64) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) >= 100*time.Millisecond {
			last = now
			u.progress(api.Progress{Task: task, Phase: "pack", Bytes: done})
		}
	}
}

// endProgress removes the progress bars, before anything else is printed.
func (u *ui) endProgress() {
	u.bars.End()
}
