package aptconf

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// options are apt's configuration (apt.conf(5)): values by lower-case name, such as
// "acquire::https::cainfo".
type options map[string]string

// options reads apt.conf.d and apt.conf in apt's order.
func (m Machine) options() (options, error) {
	var files []string
	dir, err := fs.ReadDir(m.FS, "etc/apt/apt.conf.d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list apt's configuration: %w", err)
	}
	for _, d := range dir {
		if ext := path.Ext(d.Name()); plainName(d.Name()) && (ext == "" || ext == ".conf") && !d.IsDir() {
			files = append(files, "etc/apt/apt.conf.d/"+d.Name())
		}
	}
	out := options{}
	for _, f := range append(files, "etc/apt/apt.conf") {
		data, err := m.read(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read apt's configuration: %w", err)
		}
		out.parse(string(data))
	}
	return out, nil
}

// plainName reports whether apt reads a file with that name in a configuration directory.
func plainName(n string) bool {
	return n[0] != '.' && strings.Trim(n, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == ""
}

// parse adds the values in one file. It skips lists, which have no names, and text that
// it cannot parse.
func (o options) parse(text string) {
	var scopes []string // names of the open blocks
	var words []string  // of the statement so far
	var word strings.Builder
	open := false // a word has begun
	end := func() {
		if open {
			words = append(words, word.String())
		}
		word.Reset()
		open = false
	}
	statement := func() {
		end()
		switch {
		case len(words) == 2 && words[0] == "#clear":
			o.clear(words[1])
		case len(words) == 2:
			o[strings.ToLower(strings.Join(append(scopes[:len(scopes):len(scopes)], words[0]), "::"))] = words[1]
		}
		words = nil
	}
	lineStart := true
	for i := 0; i < len(text); i++ {
		rest := text[i:]
		atStart := lineStart
		lineStart = text[i] == '\n' || lineStart && (text[i] == ' ' || text[i] == '\t')
		switch c := text[i]; {
		case strings.HasPrefix(rest, "//"), c == '#' && !(atStart && (strings.HasPrefix(rest, "#clear") || strings.HasPrefix(rest, "#include"))):
			end()
			n := strings.IndexByte(rest, '\n')
			if n < 0 {
				n = len(rest)
			}
			i += n - 1
		case strings.HasPrefix(rest, "/*"):
			end()
			n := strings.Index(rest[2:], "*/")
			if n < 0 {
				return
			}
			i += n + 3
		case c == '"':
			n := strings.IndexAny(rest[1:], "\"\n")
			if n < 0 || rest[1+n] == '\n' {
				return
			}
			word.WriteString(rest[1 : 1+n])
			open = true
			i += n + 1
		case c == '{':
			end()
			name := strings.Join(words, "::")
			if name != "" {
				name = strings.TrimSuffix(name, "::")
			}
			scopes, words = append(scopes, name), nil
		case c == '}':
			statement()
			if len(scopes) > 0 {
				scopes = scopes[:len(scopes)-1]
			}
		case c == ';':
			statement()
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			end()
		default:
			word.WriteByte(c)
			open = true
		}
	}
	statement()
}

func (o options) clear(name string) {
	name = strings.ToLower(name)
	for k := range o {
		if k == name || strings.HasPrefix(k, name+"::") {
			delete(o, k)
		}
	}
}

// forHost returns an option of https for a host. A value for the host takes precedence
// over the general one.
func (o options) forHost(host, name string) string {
	for _, k := range []string{"acquire::https::" + host + "::" + name, "acquire::https::" + name} {
		if v := o[strings.ToLower(k)]; v != "" {
			return v
		}
	}
	return ""
}
