package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// ErrNotEditable means that a change of a configuration file would lose a comment, or
// that the mirror is written in a form that cannot be changed as text.
var ErrNotEditable = errors.New("cannot be edited by a program")

// Setting is a key of a mirror and its value in TOML; "" removes the key.
type Setting struct{ Key, Value string }

// ParseSetting parses KEY=VALUE as users type it: strings without quotes, lists with
// commas. A value that begins like a TOML list or string is used unchanged. An empty
// value removes the key.
func ParseSetting(arg string) (Setting, error) {
	key, value, ok := strings.Cut(arg, "=")
	kinds := mirrorKeys()
	kind, known := kinds[key]
	switch {
	case !ok:
		return Setting{}, fmt.Errorf("%q: expected KEY=VALUE", arg)
	case key == "name":
		return Setting{}, errors.New("to change the name of a mirror, use: snapctl mirror rename M N")
	case !known:
		return Setting{}, fmt.Errorf("unknown key %q: expected one of %s", key, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	case value == "" || strings.HasPrefix(value, "[") || strings.HasPrefix(value, `"`):
		return Setting{key, value}, nil
	case kind == reflect.Bool && value != "true" && value != "false":
		return Setting{}, fmt.Errorf("%s: %q: expected true or false", key, value)
	case kind == reflect.Bool:
		return Setting{key, value}, nil
	case kind == reflect.Slice:
		var list []string
		for s := range strings.SplitSeq(value, ",") {
			list = append(list, Quote(strings.TrimSpace(s)))
		}
		return Setting{key, "[" + strings.Join(list, ", ") + "]"}, nil
	}
	return Setting{key, Quote(value)}, nil
}

// mirrorKeys returns the keys of a mirror: Bool, Slice, or String for the rest.
func mirrorKeys() map[string]reflect.Kind {
	keys := map[string]reflect.Kind{}
	for i := range reflect.TypeFor[Mirror]().NumField() {
		f := reflect.TypeFor[Mirror]().Field(i)
		t := f.Type
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		kind := reflect.String
		if t.Kind() == reflect.Bool || t.Kind() == reflect.Slice {
			kind = t.Kind()
		}
		keys[f.Tag.Get("toml")] = kind
	}
	return keys
}

// Quote returns s as a basic string of TOML: JSON's form, with DEL escaped too.
func Quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // encoding a string cannot fail
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}

// MirrorText returns a [[mirror]] table.
func MirrorText(name MirrorName, settings []Setting) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[[mirror]]\nname = %s\n", Quote(string(name)))
	for _, s := range settings {
		if s.Value != "" {
			fmt.Fprintf(&b, "%s = %s\n", s.Key, s.Value)
		}
	}
	return b.String()
}

// AddMirror returns the text of a configuration file with one more mirror, at the end.
// file is the name of the file, for messages and relative paths. All other bytes stay the
// same, as with the functions below.
func AddMirror(file string, text []byte, name MirrorName, settings []Setting) ([]byte, error) {
	out := slices.Clone(text)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	if len(out) > 0 {
		out = append(out, '\n')
	}
	return checked(file, text, append(out, MirrorText(name, settings)...), name)
}

// SetMirror changes keys of a mirror.
func SetMirror(file string, text []byte, name MirrorName, settings []Setting) ([]byte, error) {
	out := slices.Clone(text)
	for _, s := range settings {
		t, err := findTable(file, out, name)
		if err != nil {
			return nil, err
		}
		if out, err = t.set(file, out, s); err != nil {
			return nil, err
		}
	}
	return checked(file, text, out, name)
}

// RenameMirror changes the name of a mirror.
func RenameMirror(file string, text []byte, name, to string) ([]byte, error) {
	t, err := findTable(file, text, MirrorName(name))
	if err != nil {
		return nil, err
	}
	out, err := t.set(file, text, Setting{"name", Quote(to)})
	if err != nil {
		return nil, err
	}
	return checked(file, text, out, MirrorName(name), MirrorName(to))
}

// RemoveMirror removes a mirror's table, with the comments directly above it.
func RemoveMirror(file string, text []byte, name MirrorName) ([]byte, error) {
	t, err := findTable(file, text, name)
	if err != nil {
		return nil, err
	}
	before := text[:t.start]
	if t.end == len(text) {
		// Remove the empty lines above the removed table if they would end the file.
		for bytes.HasSuffix(before, []byte("\n\n")) {
			before = before[:len(before)-1]
		}
	}
	return checked(file, text, slices.Concat(before, text[t.end:]), name)
}

// checked returns an edited text if it is valid and changes only the mirrors named in
// about.
func checked(file string, old, text []byte, about ...MirrorName) ([]byte, error) {
	was, err := Parse(file, old)
	if err != nil {
		return nil, err
	}
	is, err := Parse(file, text)
	if err != nil {
		return nil, err
	}
	others := func(c *Config) Config {
		rest := *c
		rest.Mirrors = slices.DeleteFunc(append([]Mirror{}, c.Mirrors...), func(m Mirror) bool { return slices.Contains(about, m.Name) })
		return rest
	}
	if !reflect.DeepEqual(others(was), others(is)) {
		return nil, fmt.Errorf("%s: mirror %s %w: the change would affect other parts of the file", file, about[0], ErrNotEditable)
	}
	return text, nil
}

// table is a [[mirror]] table in the text of a configuration file.
type table struct {
	name       string
	start, end int // with the comments directly above it, and an empty line after it
	insert     int // offset after the line of its last key
	keys       []keyValue
}

// keyValue is one key of a table: text[start:end] is KEY = VALUE.
type keyValue struct {
	key               string
	start, value, end int
	line              int
	hasComments       bool // inside the value
}

// findTable returns the table of a mirror.
func findTable(file string, text []byte, name MirrorName) (*table, error) {
	tables, err := tables(file, text)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		if MirrorName(t.name) == name {
			return &t, nil
		}
	}
	c, err := Parse(file, text)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range c.Mirrors {
		if m.Name == name {
			return nil, fmt.Errorf("%s: mirror %s %w: it is not in a separate [[mirror]] table", file, name, ErrNotEditable)
		}
		names = append(names, string(m.Name))
	}
	return nil, fmt.Errorf("%w: %s (configured: %s)", ErrUnknownMirror, name, strings.Join(slices.Sorted(slices.Values(names)), ", "))
}

// tables returns the [[mirror]] tables of a text.
func tables(file string, text []byte) ([]table, error) {
	p := unstable.Parser{KeepComments: true}
	p.Reset(text)
	var out []table
	var headers []int // of all tables
	open := false
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			key := e.Key()
			key.Next()
			at := lineStart(text, int(key.Node().Raw.Offset))
			headers = append(headers, at)
			if open = e.Kind == unstable.ArrayTable && string(key.Node().Data) == "mirror" && key.IsLast(); open {
				out = append(out, table{start: at, insert: lineEnd(text, at)})
			}
		case unstable.KeyValue:
			if !open {
				continue
			}
			t := &out[len(out)-1]
			kv := keyValue{start: int(e.Raw.Offset), end: int(e.Raw.Offset + e.Raw.Length), hasComments: hasComment(e.Value())}
			key := e.Key()
			key.Next()
			kv.key = string(key.Node().Data)
			kv.line = 1 + bytes.Count(text[:kv.start], []byte("\n"))
			kv.value = kv.start + bytes.IndexByte(text[kv.start:kv.end], '=') + 1
			for text[kv.value] == ' ' || text[kv.value] == '\t' {
				kv.value++
			}
			if kv.key == "name" && key.IsLast() {
				t.name = string(e.Value().Data)
			}
			t.keys, t.insert = append(t.keys, kv), lineEnd(text, kv.end)
		}
	}
	if err := p.Error(); err != nil {
		var c Config
		return nil, decodeError(file, toml.Unmarshal(text, &c)) // names the line
	}
	for i := range out {
		t := &out[i]
		t.end = tableEnd(text, t.insert, headers)
		t.start = commentsAbove(text, t.start)
	}
	return out, nil
}

// hasComment reports whether a value has comments inside.
func hasComment(n *unstable.Node) bool {
	if n.Kind == unstable.Comment {
		return true
	}
	if n.Kind != unstable.Array {
		return false
	}
	for it := n.Children(); it.Next(); {
		if hasComment(it.Node()) {
			return true
		}
	}
	return false
}

// set replaces, adds or removes a key.
func (t *table) set(file string, text []byte, s Setting) ([]byte, error) {
	i := slices.IndexFunc(t.keys, func(kv keyValue) bool { return kv.key == s.Key })
	if i < 0 && s.Value == "" {
		return text, nil
	}
	if i < 0 {
		line := s.Key + " = " + s.Value + "\n"
		if at := t.column(text); at > len(s.Key) {
			line = s.Key + strings.Repeat(" ", at-len(s.Key)) + "= " + s.Value + "\n"
		}
		if n := len(t.keys); n > 0 {
			at := t.keys[n-1].start
			line = string(text[lineStart(text, at):at]) + line
		}
		if t.insert > 0 && text[t.insert-1] != '\n' {
			line = "\n" + line
		}
		return slices.Concat(text[:t.insert], []byte(line), text[t.insert:]), nil
	}
	kv := t.keys[i]
	if kv.hasComments {
		return nil, fmt.Errorf("%s:%d: %s of mirror %s %w: comments inside its value would be lost", file, kv.line, s.Key, t.name, ErrNotEditable)
	}
	if s.Value == "" {
		return slices.Concat(text[:lineStart(text, kv.start)], text[lineEnd(text, kv.end):]), nil
	}
	return slices.Concat(text[:kv.value], []byte(s.Value), text[kv.end:]), nil
}

// column returns the column of "=" if all keys have it in the same column, otherwise 0.
func (t *table) column(text []byte) int {
	column := 0
	for i, kv := range t.keys {
		at := bytes.IndexByte(text[kv.start:kv.end], '=')
		if i > 0 && at != column {
			return 0
		}
		column = at
	}
	if len(t.keys) < 2 {
		return 0
	}
	return column
}

func lineStart(text []byte, at int) int { return bytes.LastIndexByte(text[:at], '\n') + 1 }

// lineEnd returns the offset after the end of a line.
func lineEnd(text []byte, at int) int {
	if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(text)
}

// commentsAbove returns the start of the comments directly above a line.
func commentsAbove(text []byte, at int) int {
	for at > 0 {
		above := lineStart(text, at-1)
		if !bytes.HasPrefix(bytes.TrimLeft(text[above:at], " \t"), []byte("#")) {
			break
		}
		at = above
	}
	return at
}

// tableEnd returns the end of a table whose last key ends at a line. The table includes
// comments that follow directly, unless they belong to the next table, and the empty
// lines after them.
func tableEnd(text []byte, at int, headers []int) int {
	end := at
	for end < len(text) && bytes.HasPrefix(bytes.TrimLeft(text[end:lineEnd(text, end)], " \t"), []byte("#")) {
		end = lineEnd(text, end)
	}
	if slices.Contains(headers, end) {
		end = at
	}
	for end < len(text) && len(bytes.TrimSpace(text[end:lineEnd(text, end)])) == 0 {
		end = lineEnd(text, end)
	}
	return end
}
