package sbom

import (
	"bufio"
	"encoding/json"
	"strings"
)

// writer writes JSON, with each element of an array on its own line, and keeps
// the first error.
type writer struct {
	w   *bufio.Writer
	err error
}

func (w *writer) text(s string) {
	if w.err == nil {
		_, w.err = w.w.WriteString(s)
	}
}

func (w *writer) value(v any) {
	if w.err != nil {
		return
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if w.err = enc.Encode(v); w.err == nil {
		w.text(strings.TrimSuffix(b.String(), "\n"))
	}
}

// key starts a member of the top-level object.
func (w *writer) key(name string, first bool) {
	if first {
		w.text("{\n")
	} else {
		w.text(",\n")
	}
	w.value(name)
	w.text(": ")
}

func (w *writer) member(name string, v any) {
	w.key(name, false)
	w.value(v)
}

// array writes a member that is an array. each calls add for each element.
func (w *writer) array(name string, each func(add func(any))) {
	w.key(name, false)
	sep := "[\n"
	each(func(v any) {
		w.text(sep)
		w.value(v)
		sep = ",\n"
	})
	if sep == "[\n" {
		w.text("[")
	}
	w.text("\n]")
}
