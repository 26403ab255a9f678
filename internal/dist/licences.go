package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// module is a module that the programs are linked from.
type module struct{ Path, Version, Dir string }

// linked lists the modules whose packages are part of the programs, in order.
func (r *release) linked(ctx context.Context) ([]module, error) {
	out, err := r.run(ctx, r.dir, "go", "list", "-mod=mod", "-deps", "-json=Module", "./cmd/...")
	if err != nil {
		return nil, err
	}
	seen := map[string]module{}
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p struct {
			Module *struct {
				module
				Main bool
			}
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if m := p.Module; m != nil && !m.Main {
			seen[m.Path] = m.module
		}
	}
	list := make([]module, 0, len(seen))
	for _, m := range seen {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

// terms are sentences that identify licences, with their SPDX names.
var terms = []struct {
	name string
	says *regexp.Regexp
	not  *regexp.Regexp
}{
	{"Apache-2.0", regexp.MustCompile(`Apache License,? +Version 2\.0`), nil},
	{"BSD-2-Clause", regexp.MustCompile(`Redistributions in binary form`), noEndorsement},
	{"BSD-3-Clause", noEndorsement, nil},
	{"ISC", regexp.MustCompile(`Permission to use, copy, modify,? and(/or)? distribute .* provided that the above copyright notice`), nil},
	{"0BSD", regexp.MustCompile(`Permission to use, copy, modify,? and(/or)? distribute`), regexp.MustCompile(`provided that the above copyright notice`)},
	{"MIT", regexp.MustCompile(`Permission is hereby granted, free of charge`), nil},
	{"MPL-2.0", regexp.MustCompile(`Mozilla Public License`), nil},
	{"Unlicense", regexp.MustCompile(`free and unencumbered software`), nil},
}

var noEndorsement = regexp.MustCompile(`(?i)(Neither the names?|nor the names?) `)

var errLicence = errors.New("licence not recognised")

// licence reads the licence of a module: its SPDX names and its text.
func (m module) licence() (names []string, text string, err error) {
	for _, glob := range []string{"LICENSE*", "LICENCE*", "COPYING*", "UNLICENSE*"} {
		files, err := filepath.Glob(filepath.Join(m.Dir, glob))
		if err != nil {
			return nil, "", err
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				return nil, "", err
			}
			text += string(data)
		}
		if text != "" {
			break
		}
	}
	flat := strings.Join(strings.Fields(strings.ReplaceAll(text, "\n>", "\n")), " ")
	for _, t := range terms {
		if t.says.MatchString(flat) && (t.not == nil || !t.not.MatchString(flat)) {
			names = append(names, t.name)
		}
	}
	if len(names) == 0 {
		return nil, "", fmt.Errorf("%s: %w", m.Path, errLicence)
	}
	return names, text, nil
}

var copyrightLine = regexp.MustCompile(`(?i)^[>*# \t]*copyright (?:\(c\) |© )?(\d.*)$`)

// holders returns the copyright lines of a licence.
func holders(text string) (out []string) {
	for _, l := range strings.Split(text, "\n") {
		if m := copyrightLine.FindStringSubmatch(l); m != nil {
			h := strings.TrimSpace(m[1])
			if !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
	}
	return out
}

// apacheText matches the text of the Apache licence with its appendix, which Debian
// systems have.
var apacheText = regexp.MustCompile(`(?s)[ \n]+Apache License\s+Version 2\.0.*limitations under the License\.`)

const copyrightHead = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: frozen-snapd
Source: https://snapd.example.org/
Comment: The programs are linked statically. The modules that they are linked
 from are below vendor/ in the source, which ` + "`make dist`" + ` puts there. The
 standard library of Go is linked in too: it has the licence and the holders of
 vendor/golang.org/x/sys.

Files: *
Copyright: 2026 Snapd maintainers
License: Apache-2.0
 On Debian systems the text of the Apache License, Version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.

Files: internal/httpd/testdata/openapi-3.1.schema.json
Copyright: The Linux Foundation (OpenAPI Initiative)
License: Apache-2.0
Comment: A test checks our description of the control API with it. It is not
 part of the programs.
`

// copyright writes debian/copyright (DEP 5): our licence, and the licence text of every
// linked module.
func (r *release) copyright(ctx context.Context) (string, error) {
	modules, err := r.linked(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(copyrightHead)
	for _, m := range modules {
		names, text, err := m.licence()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\nFiles: vendor/%s/*\n", m.Path)
		who := holders(text)
		if len(who) == 0 {
			who = []string{"the authors of " + m.Path}
		}
		fmt.Fprintf(&b, "Copyright: %s\n", strings.Join(who, "\n "))
		fmt.Fprintf(&b, "License: %s\n", strings.Join(names, " and "))
		if slices.Equal(names, []string{"Apache-2.0"}) {
			b.WriteString(" On Debian systems the text of the Apache License, Version 2.0, is in\n /usr/share/common-licenses/Apache-2.0.\n")
			continue
		}
		text = apacheText.ReplaceAllString(text, "\nApache License, Version 2.0: see /usr/share/common-licenses/Apache-2.0\n")
		for _, l := range strings.Split(strings.TrimSpace(text), "\n") {
			if l = strings.TrimRight(l, " \t\r\f"); l == "" {
				l = "."
			}
			b.WriteString(" " + strings.ReplaceAll(l, "\f", "") + "\n")
		}
	}
	return b.String(), nil
}
