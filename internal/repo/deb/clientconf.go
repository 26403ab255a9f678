package deb

import (
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/repo"
)

// ClientConfig formats the configuration of apt: "deb822" as a .sources file with
// an inline key, "list" as one-line entries with key files, "mmdebstrap" as the
// standard input of that program. None needs an option that weakens apt's checks.
func (Format) ClientConfig(kind string, p repo.SourceParams) (string, error) {
	stanzas := clientStanzas(p)
	if len(stanzas) == 0 {
		return "", fmt.Errorf("client configuration of %s: no suite to serve", p.Name)
	}
	archs := slices.DeleteFunc(slices.Clone(p.Archs), func(a string) bool { return a == "all" || a == SourceArch || a == "" })
	var b strings.Builder
	switch kind {
	case "deb822", "mmdebstrap":
		if kind == "deb822" {
			for line := range strings.Lines(p.Comment) {
				b.WriteString("# " + strings.TrimRight(line, "\n") + "\n")
			}
		}
		for i, s := range stanzas {
			if i > 0 {
				b.WriteString("\n")
			}
			b.WriteString("Types: " + strings.Join(s.types, " ") + "\n")
			b.WriteString("URIs: " + p.URL + "\n")
			b.WriteString("Suites: " + strings.Join(s.suites, " ") + "\n")
			if len(s.components) > 0 {
				b.WriteString("Components: " + strings.Join(s.components, " ") + "\n")
			}
			if len(archs) > 0 {
				b.WriteString("Architectures: " + strings.Join(archs, " ") + "\n")
			}
			b.WriteString(signedBy(p))
		}
	case "list":
		if len(p.KeyFiles) == 0 {
			return "", fmt.Errorf("one-line sources of %s cannot contain a key: expected a key file", p.Name)
		}
		for line := range strings.Lines(p.Comment) {
			b.WriteString("# " + strings.TrimRight(line, "\n") + "\n")
		}
		var options []string
		if len(archs) > 0 {
			options = append(options, "arch="+strings.Join(archs, ","))
		}
		options = append(options, "signed-by="+strings.Join(p.KeyFiles, ","))
		for _, s := range stanzas {
			for _, suite := range s.suites {
				for _, t := range s.types {
					fmt.Fprintf(&b, "%s [%s] %s %s\n", t, strings.Join(options, " "), p.URL, strings.Join(append([]string{suite}, s.components...), " "))
				}
			}
		}
	default:
		return "", fmt.Errorf("client configuration of %s: kind %q: expected deb822, list or mmdebstrap", p.Name, kind)
	}
	return b.String(), nil
}

// signedBy writes the Signed-By field: the key itself, with "." for its blank
// lines, or the names of key files.
func signedBy(p repo.SourceParams) string {
	if p.KeyArmored == "" {
		if len(p.KeyFiles) == 0 {
			return ""
		}
		return "Signed-By: " + strings.Join(p.KeyFiles, ", ") + "\n"
	}
	var b strings.Builder
	b.WriteString("Signed-By:\n")
	for line := range strings.Lines(strings.TrimSpace(p.KeyArmored)) {
		if line = strings.TrimSpace(line); line == "" {
			line = "."
		}
		b.WriteString(" " + line + "\n")
	}
	return b.String()
}

type clientStanza struct{ types, suites, components []string }

// clientStanzas groups suites with the same components. It gives flat suites and
// suites without sources stanzas of their own, because apt complains about the
// former with components and about the latter with deb-src.
func clientStanzas(p repo.SourceParams) []clientStanza {
	var out []clientStanza
	for _, suite := range p.Suites {
		comps := p.Components[suite]
		if isFlat(suite) {
			comps = nil
		} else if len(comps) == 0 {
			continue // an imported freeze without packages from this suite; apt refuses a stanza without components
		}
		types := []string{"deb"}
		if p.HasSources && !p.NoSources[suite] {
			types = append(types, "deb-src")
		}
		i := slices.IndexFunc(out, func(s clientStanza) bool {
			return !isFlat(suite) && slices.Equal(s.types, types) && slices.Equal(s.components, comps) && len(comps) > 0
		})
		if i < 0 {
			out = append(out, clientStanza{types, []string{string(suite)}, comps})
		} else {
			out[i].suites = append(out[i].suites, string(suite))
		}
	}
	return out
}
