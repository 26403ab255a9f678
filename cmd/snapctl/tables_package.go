package main

import (
	"strings"

	"example.org/snapd/internal/api"
)

// shownPackage prints the stanzas of a package, each with its files and its history.
func (u *ui) shownPackage(p *api.ShownPackage) {
	for i := range p.Stanzas {
		if i > 0 {
			u.printf("\n")
		}
		u.packageDetail(p.Ref, &p.Stanzas[i])
	}
}

func (u *ui) packageDetail(ref string, d *api.PackageDetail) {
	var places, seen []string
	for _, p := range d.Places {
		place := p.Suite
		if p.Component != "" {
			place += "/" + p.Component
		}
		places = append(places, place)
	}
	for _, s := range d.Seen {
		if s.First.Equal(s.Last) {
			seen = append(seen, timeText(s.Last))
		} else {
			seen = append(seen, timeText(s.First)+" to "+timeText(s.Last))
		}
	}
	u.fields(
		"Package", d.Name,
		"Version", d.Version,
		"Architecture", d.Arch,
		"In", ref,
		"Mirror", d.Mirror,
		"Listed in", strings.Join(places, " "),
		"Source", strings.TrimSpace(d.Source+" "+d.SourceVersion),
		"Stored", yes(d.Here),
		"Snapshots", strings.Join(seen, ", "),
		"Frozen in", strings.Join(d.Frozen, " "),
		"Channels", strings.Join(d.Channels, " "),
	)
	u.heading("Files:")
	rows := [][]string{{"  PATH", "SIZE", "SHA-256"}}
	for _, f := range d.Files {
		rows = append(rows, []string{"  " + f.Path, bytesText(f.Size), f.SHA256})
	}
	u.table(rows...)
	u.heading("Control data:")
	for _, f := range d.Fields {
		u.text("  " + clean(f.Name) + ": " + strings.ReplaceAll(cleanLines(f.Value), "\n", "\n  ") + "\n")
	}
}
