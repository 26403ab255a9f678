package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/api"
)

func (u *ui) frozen(f *api.Frozen) {
	imported := ""
	if f.Imported {
		imported = "yes"
	}
	u.fields(
		"Frozen", f.Name,
		"Date", timeText(f.Date),
		"Created", timeText(f.Created),
		"Imported", imported,
		"Damage", f.Damage,
		"Packages", strconv.Itoa(f.Packages),
		"Sources", strconv.Itoa(f.Sources),
		"Bytes", bytesText(f.Bytes),
		"Manifest", "sha256:"+f.Manifest,
		"Signed by", f.Key,
		"URL", f.URL,
		"Statements", strings.Join(f.Statements, " "),
		"Channels", strings.Join(f.Channels, " "),
		"Labels", labelsText(f.Labels),
		"Labels damaged", f.LabelsDamage,
	)
	u.description(f.Description)
	if len(f.Mirrors) > 0 {
		u.printf("\n")
		rows := [][]string{{"MIRROR", "TYPE", "KIND", "SNAPSHOT", "TRUST", "SUITES", "PACKAGES", "SOURCES"}}
		for _, m := range f.Mirrors {
			rows = append(rows, []string{m.Mirror, m.Type, m.Kind, strings.Join(append([]string{m.Snapshot}, m.Others...), ","), m.Trust, strings.Join(m.Suites, ","), strconv.Itoa(m.Packages), strconv.Itoa(m.Sources)})
		}
		u.table(rows...)
	}
	if len(f.Images) > 0 {
		u.printf("\n")
		u.images(&api.ImageList{Images: f.Images})
	}
	if len(f.Attestations) > 0 {
		u.heading("Attestations:")
		u.attestations(f.Attestations, false)
	}
	if len(f.Missing) > 0 {
		u.heading("Allowed to be missing:")
		for _, m := range f.Missing {
			u.printf("  %s\n", m)
		}
	}
}

func (u *ui) diff(d *api.Diff) {
	total := 0
	for _, part := range []struct {
		name string
		list []api.DiffEntry
	}{{"Added", d.Added}, {"Removed", d.Removed}, {"Upgraded", d.Upgraded}, {"Downgraded", d.Downgraded}, {"Same version, different bytes", d.Rebuilt}} {
		if len(part.list) == 0 {
			continue
		}
		total += len(part.list)
		u.printf("%s: %s\n", part.name, strconv.Itoa(len(part.list)))
		var rows [][]string
		for _, e := range part.list {
			var what string
			switch {
			case e.Old == "":
				what = e.New
			case e.New == "":
				what = e.Old
			case e.Old == e.New:
				what = e.Old + "  " + short(e.OldSHA256) + " -> " + short(e.NewSHA256)
			default:
				what = e.Old + " -> " + e.New
			}
			rows = append(rows, []string{"  " + e.Name + ":" + e.Arch, what, e.Mirror})
		}
		u.table(rows...)
	}
	if total == 0 {
		u.printf("no packages differ between %s and %s\n", d.A, d.B)
		return
	}
	if len(d.Sources) > 0 {
		u.printf("By source package: %s\n", strconv.Itoa(len(d.Sources)))
		var rows [][]string
		for _, s := range d.Sources {
			rows = append(rows, []string{"  " + s.Source, s.Kind, change(s), count(s.Count, "package", "packages")})
		}
		u.table(rows...)
	}
}

// change describes the versions of a source package before and after.
func change(s api.SourceDiff) string {
	was, is := strings.Join(s.Old, ","), strings.Join(s.New, ",")
	if was == "" || is == "" {
		return was + is
	}
	return was + " -> " + is
}

// report prints how the entries of manifests were resolved: all of them, or only
// those that need attention.
func (u *ui) report(r *api.Report, all bool) {
	if r == nil {
		return
	}
	u.printf("Entries: %d resolved (%d in several places), %d ambiguous, %d missing\n", r.Resolved, r.Several, r.Ambiguous, r.Missing)
	u.reportNotes(r)
	rows := [][]string{{"STATE", "ENTRY", "BY", "MANIFEST", "PLACES"}}
	for _, e := range r.Entries {
		if !all && e.State == "resolved" {
			continue
		}
		from := e.Manifest
		if e.Line > 0 {
			from += ":" + strconv.Itoa(e.Line)
		}
		places := e.Places
		if e.State == "ambiguous" {
			places = e.Candidates
		}
		var where []string
		for _, p := range places {
			w := p.Mirror + " " + p.Name + " " + p.Version + " " + p.Arch
			if e.State == "ambiguous" {
				w += " " + contents(p)
			}
			if !slices.Contains(where, w) {
				where = append(where, w)
			}
		}
		if e.Reason != "" {
			where = append(where, e.Reason)
		}
		if e.Snapshot != "" {
			where = append(where, e.Snapshot+" has it")
		}
		rows = append(rows, []string{e.State, e.Entry, e.By, from, strings.Join(where, "; ")})
	}
	if len(rows) > 1 {
		u.table(rows...)
	}
}

// contents distinguishes the candidates of an ambiguous entry by the file of a
// package, or by all files of a source package.
func contents(p api.Package) string {
	if len(p.Files) == 0 {
		return short(p.SHA256)
	}
	sums := make([]string, 0, len(p.Files))
	for _, f := range p.Files {
		sums = append(sums, short(f.SHA256))
	}
	return strings.Join(sums, ",")
}

// maxNotes is how many notes of one kind about build manifests are printed.
const maxNotes = 10

// reportNotes prints the skipped parts of build manifests, and the versions that were
// chosen for entries without a version.
func (u *ui) reportNotes(r *api.Report) {
	for _, n := range r.Notes[:min(len(r.Notes), maxNotes)] {
		u.note("%s", n)
	}
	if more := r.NoteCount - maxNotes; more > 0 {
		u.note("… and %d more", more)
	}
	if r.Newest == 0 {
		return
	}
	u.note("%s without a version: the newest was chosen", count(r.Newest, "entry", "entries"))
	shown := 0
	for _, e := range r.Entries {
		if e.State != "resolved" || e.Reason == "" {
			continue
		}
		if shown++; shown > maxNotes {
			u.note("… (--dry-run shows all)")
			return
		}
		u.note("%s: %s", e.Entry, e.Reason)
	}
}

func (u *ui) broken(list []api.Problem) {
	if len(list) == 0 {
		return
	}
	u.printf("Broken: %s\n", count(len(list), "relation", "relations"))
	rows := [][]string{{"  PACKAGE", "RELATION", "REASON"}}
	for _, p := range list {
		rows = append(rows, []string{"  " + p.Package, p.Relation, p.Reason})
	}
	u.table(rows...)
}

func (u *ui) freezeDone(r *api.FreezeResult) {
	switch {
	case r.DryRun:
		u.report(r.Report, true)
	case r.Report != nil:
		if r.Report.Missing > 0 {
			u.printf("Entries: %d resolved, %d recorded as missing\n", r.Report.Resolved, r.Report.Missing)
		}
		u.reportNotes(r.Report)
	}
	if r.Changes != nil {
		u.diff(r.Changes)
	}
	u.broken(r.Broken)
	if r.DryRun {
		u.printf("nothing was frozen (--dry-run)\n")
		return
	}
	if r.Witnessed != "" {
		u.printf("witnessed: %s\n", r.Witnessed)
	}
	if r.Fetched > 0 {
		u.printf("fetched %s, %s\n", count(r.Fetched, "file", "files"), bytesText(r.FetchedBytes))
	}
	if f := r.Frozen; f != nil {
		word := "frozen"
		if !r.New {
			word = "already frozen with the same contents"
		}
		u.printf("%s: %s: %s, %s, %s\n", f.Name, word, count(f.Packages, "package", "packages"), count(f.Sources, "source package", "source packages"), bytesText(f.Bytes))
		u.printf("manifest sha256:%s\n%s\n", f.Manifest, f.URL)
		if f.Packages+f.Sources == 0 {
			u.warning("%s contains no packages", f.Name)
		}
	}
}

func (u *ui) verified(r *api.VerifyResult) {
	by := ""
	if r.Signature != nil {
		by = r.Signature.Fingerprint + " " + r.Signature.UserID
	}
	packages := count(r.Packages, "package", "packages")
	if r.Sources > 0 {
		packages += " and " + count(r.Sources, "source package", "source packages")
	}
	if r.Places > 0 {
		packages += ", found in " + count(r.Places, "entry", "entries") + " of signed indices"
	}
	u.fields("Verified", r.Ref, "Signed by", by, "Proven", packages, "Files", fmt.Sprintf("%d, %s read", r.Files, bytesText(r.Bytes)))
	if len(r.Relied) > 0 {
		u.heading("Upstream signatures:")
		rows := [][]string{{"  MIRROR", "SUITE", "DATE", "TRUST", "PINNED", "SIGNED BY"}}
		for _, x := range r.Relied {
			var by []string
			for _, s := range x.Signers {
				by = append(by, s.Fingerprint)
			}
			rows = append(rows, []string{"  " + x.Mirror, x.Suite, timeText(x.Date), x.Trust, yes(x.Pinned), strings.Join(by, " ")})
		}
		u.table(rows...)
	}
	if l := r.Log; l != nil {
		by := ""
		if len(l.Witnesses) > 0 {
			by = ", cosigned by " + strings.Join(l.Witnesses, " ")
		}
		u.printf("\nin the transparency log: entry %d of %d of %s%s\n", l.Index, l.Size, l.Origin, by)
	}
	u.confirmed(r.Builders)
	u.reproduced(r.Rebuilders)
	for _, n := range r.Notes {
		u.printf("note: %s\n", n)
	}
	if len(r.Faults) > 0 {
		u.printf("\n")
		u.faults(r.Faults)
		return
	}
	u.printf("all checks passed\n")
}

func (u *ui) faults(list []api.VerifyFault) {
	for _, f := range list {
		u.printf("fault: %s: %s\n", f.Object, f.Message)
		if f.Field != "" {
			u.printf("  field    %s\n", f.Field)
		}
		if f.Expected != "" {
			u.printf("  expected %s\n", f.Expected)
		}
		if f.Found != "" {
			u.printf("  found    %s\n", f.Found)
		}
	}
}

func (u *ui) transferred(verb string) func(*api.TransferResult) {
	return func(r *api.TransferResult) {
		switch {
		case verb == "imported" && !r.New && r.Files > 0:
			u.printf("%s: already exists with the same contents; restored %s that had been lost, %s\n", r.Name, count(r.Files, "file", "files"), bytesText(r.Bytes))
		case verb == "imported" && !r.New:
			u.printf("%s: already exists with the same contents\n", r.Name)
		default:
			u.printf("%s: %s %s, %s\n", r.Name, verb, count(r.Files, "file", "files"), bytesText(r.Bytes))
		}
		if r.Attestations > 0 {
			u.printf("%s: %s added\n", r.Name, count(int64(r.Attestations), "attestation", "attestations"))
		}
		for _, n := range r.Notes {
			u.printf("note: %s\n", n)
		}
	}
}
