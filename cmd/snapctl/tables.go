package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/iuk"
)

func (u *ui) status(s *api.Status) {
	u.fields(
		"Version", s.Version,
		"Serving", s.PublicURL,
		"Listening", s.Listen,
		"Data", s.DataDir,
		"Key", s.Key.Fingerprint,
		"Free", bytesText(s.Free)+" (syncs stop below "+bytesText(s.Reserve)+")",
		"Blobs", fmt.Sprintf("%d, %s", s.Blobs, bytesText(s.BlobBytes)),
		"Indices", bytesText(s.IndexBytes)+" of the blobs are upstream's indices",
		"Metadata", bytesText(s.MetaBytes)+" in pages, "+bytesText(s.MetaData)+" in keys and values",
		"Snapshots", strconv.Itoa(s.Snapshots),
		"Frozen", strconv.Itoa(s.Frozen),
		"Recordings", strconv.Itoa(s.Recordings),
	)
	if s.Quarantined > 0 {
		u.fields("Quarantined", count(s.Quarantined, "blob", "blobs"))
	}
	for _, d := range s.Damaged {
		u.printf("Damaged: %s\n", d)
	}
	for _, w := range s.Warnings {
		u.printf("Warning: %s\n", w)
	}
	if len(s.Mirrors) > 0 {
		u.printf("\n")
		u.mirrors(s.Mirrors)
	}
}

func (u *ui) mirrors(list []api.MirrorStatus) {
	if len(list) == 0 {
		u.printf("no mirror is configured\n")
		return
	}
	rows := [][]string{{"MIRROR", "TYPE", "SNAPSHOTS", "LATEST", "CHECKED", "NEXT SYNC", "STATE"}}
	for _, m := range list {
		state := "ok"
		switch {
		case m.Syncing:
			state = "syncing"
		case m.Error != "":
			state = "failed"
		case m.Latest == "":
			state = "never synced"
		}
		rows = append(rows, []string{m.Name, m.Type, strconv.Itoa(m.Snapshots), m.Latest, timePtr(m.Checked), timePtr(m.NextSync), state})
	}
	u.table(rows...)
	for _, m := range list {
		if m.Error != "" && !m.Syncing {
			u.printf("%s: %s\n", m.Name, m.Error)
		}
		for _, w := range m.Warnings {
			u.printf("%s: warning: %s\n", m.Name, w)
		}
	}
}

func (u *ui) mirror(m *api.MirrorDetail) {
	u.fields(
		"Mirror", m.Name,
		"Type", m.Type,
		"URLs", strings.Join(m.URLs, " "),
		"Components", strings.Join(m.Components, " "),
		"Architectures", strings.Join(m.Architectures, " "),
		"Download", m.Download,
		"Sources", yes(m.Sources),
		"Interval", orWord(m.Interval, "only when asked"),
		"Keep", orWord(m.Keep, "for ever"),
		"Keyring", strings.Join(m.Keyring, " "),
		"Snapshots", strconv.Itoa(m.Snapshots),
		"Latest", m.Latest,
		"Checked", timePtr(m.Checked),
		"Succeeded", timePtr(m.Succeeded),
		"Next sync", timePtr(m.NextSync),
		"Error", m.Error,
	)
	u.suites(m.Suites)
	for _, w := range m.Warnings {
		u.printf("Warning: %s\n", w)
	}
}

func (u *ui) suites(list []api.SuiteDetail) {
	if len(list) == 0 {
		return
	}
	u.printf("\n")
	rows := [][]string{{"SUITE", "DATE", "VALID UNTIL", "PACKAGES", "SOURCES", "TRUST", "SIGNED BY"}}
	for _, s := range list {
		var by []string
		for _, g := range s.Signers {
			by = append(by, g.Fingerprint)
		}
		rows = append(rows, []string{s.Suite, timePtr(s.Date), timePtr(s.ValidUntil), some(s.Packages), some(s.Sources), s.Trust, strings.Join(by, " ")})
	}
	u.table(rows...)
}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return s
}

// synced tells each mirror's outcome; failures go to standard error.
func (u *ui) synced(r *api.SyncResult) {
	for _, m := range r.Mirrors {
		switch {
		case m.Error != nil:
		case m.Started:
			u.printf("%s: sync started\n", m.Mirror)
		case m.New:
			u.printf("%s: new snapshot %s (%s changed; %s, %s fetched)\n", m.Mirror, m.Snapshot, count(m.Changed, "paragraph", "paragraphs"), count(m.Files, "file", "files"), bytesText(m.Bytes))
		default:
			u.printf("%s: nothing changed since %s\n", m.Mirror, m.Snapshot)
		}
	}
}

func (u *ui) snapshots(l *api.SnapshotList) {
	if len(l.Snapshots) > 0 {
		rows := [][]string{{"SNAPSHOT", "TYPE", "SUITES", "PACKAGES", "PINNED"}}
		for _, s := range l.Snapshots {
			n := 0
			var suites []string
			for _, d := range s.Suites {
				n += d.Packages
				suites = append(suites, d.Suite)
			}
			rows = append(rows, []string{s.ID, s.Type, strings.Join(suites, ","), some(n), pinned(s)})
		}
		u.table(rows...)
	}
	if len(l.Frozen) > 0 {
		if len(l.Snapshots) > 0 {
			u.printf("\n")
		}
		rows := [][]string{{"FROZEN", "DATE", "MIRRORS", "PACKAGES", "SOURCES", "BYTES", "IMAGES"}}
		for _, f := range l.Frozen {
			var mirrors []string
			for _, m := range f.Mirrors {
				mirrors = append(mirrors, m.Mirror)
			}
			rows = append(rows, []string{f.Name, timeText(f.Date), strings.Join(mirrors, ","), strconv.Itoa(f.Packages), strconv.Itoa(f.Sources), bytesText(f.Bytes), strconv.Itoa(len(f.Images))})
		}
		u.table(rows...)
	}
	if len(l.Snapshots)+len(l.Frozen) == 0 {
		u.printf("no snapshots\n")
	}
}

func pinned(s api.Snapshot) string {
	switch {
	case !s.Pinned:
		return ""
	case s.Until == nil:
		return "for ever"
	}
	return "until " + timeText(*s.Until)
}

func (u *ui) shown(r *api.ShowResult) {
	if s := r.Snapshot; s != nil {
		u.fields(
			"Snapshot", s.ID,
			"Mirror", s.Mirror+" ("+s.Type+")",
			"Timestamp", timeText(s.Timestamp),
			"URL", s.URL,
			"Taken from", s.FromURL,
			"Pinned", pinned(*s),
			"Used by", strings.Join(s.UsedBy, " "),
		)
		u.suites(s.Suites)
	}
	if f := r.Frozen; f != nil {
		u.frozen(f)
	}
}

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
		"Packages", strconv.Itoa(f.Packages),
		"Sources", strconv.Itoa(f.Sources),
		"Bytes", bytesText(f.Bytes),
		"Manifest", "sha256:"+f.Manifest,
		"Signed by", f.Key,
		"URL", f.URL,
		"Statements", strings.Join(f.Statements, " "),
	)
	if len(f.Mirrors) > 0 {
		u.printf("\n")
		rows := [][]string{{"MIRROR", "TYPE", "KIND", "SNAPSHOT", "TRUST", "SUITES", "PACKAGES", "SOURCES"}}
		for _, m := range f.Mirrors {
			rows = append(rows, []string{m.Mirror, m.Type, m.Kind, m.Snapshot, m.Trust, strings.Join(m.Suites, ","), strconv.Itoa(m.Packages), strconv.Itoa(m.Sources)})
		}
		u.table(rows...)
	}
	if len(f.Images) > 0 {
		u.printf("\n")
		u.images(&api.ImageList{Images: f.Images})
	}
	if len(f.Missing) > 0 {
		u.heading("Allowed to be missing:")
		for _, m := range f.Missing {
			u.printf("  %s\n", m)
		}
	}
}

func (u *ui) images(l *api.ImageList) {
	if len(l.Images) == 0 {
		u.printf("no images\n")
		return
	}
	rows := [][]string{{"FROZEN", "VARIANT", "SIZE", "SHA256", "PATH"}}
	for _, i := range l.Images {
		rows = append(rows, []string{i.Name, i.Variant, bytesText(i.Size), i.SHA256, i.Path})
	}
	u.table(rows...)
}

func (u *ui) packages(l *api.PackageList) {
	if len(l.Packages) == 0 {
		u.printf("no packages\n")
		return
	}
	rows := [][]string{{"PACKAGE", "VERSION", "ARCH", "SIZE", "MIRROR", "SUITES"}}
	for _, p := range l.Packages {
		rows = append(rows, []string{p.Name, p.Version, p.Arch, bytesText(p.Size), p.Mirror, strings.Join(p.Suites, ",")})
	}
	u.table(rows...)
}

func (u *ui) found(r *api.FindResult) {
	rows := [][]string{{"PACKAGE", "VERSION", "ARCH", "MIRROR", "FIRST", "LAST", "STORED", "FROZEN"}}
	for _, m := range r.Matches {
		rows = append(rows, []string{m.Name, m.Version, m.Arch, m.Mirror, at(m.First), at(m.Last), yes(m.Here), strings.Join(m.Frozen, ",")})
	}
	u.table(rows...)
}

// at is the timestamp of a snapshot id.
func at(id string) string {
	if _, t, ok := strings.Cut(id, "@"); ok {
		return t
	}
	return id
}

func (u *ui) diff(d *api.Diff) {
	total := 0
	for _, part := range []struct {
		name string
		list []api.DiffEntry
	}{{"Added", d.Added}, {"Removed", d.Removed}, {"Upgraded", d.Upgraded}, {"Downgraded", d.Downgraded}, {"Same version, other bytes", d.Rebuilt}} {
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
		u.printf("no package differs between %s and %s\n", d.A, d.B)
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

// change tells the versions of a source package before and after.
func change(s api.SourceDiff) string {
	was, is := strings.Join(s.Old, ","), strings.Join(s.New, ",")
	if was == "" || is == "" {
		return was + is
	}
	return was + " -> " + is
}

// report tells how entries of manifests were resolved: one by one, or only those
// that need a look.
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

// contents tells the candidates of an ambiguous entry apart: the file of a
// package, or all files of a source package.
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

// reportNotes prints what was skipped in build manifests, and which versions were
// chosen where they name none.
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
	if r.Fetched > 0 {
		u.printf("fetched %s, %s\n", count(r.Fetched, "file", "files"), bytesText(r.FetchedBytes))
	}
	if f := r.Frozen; f != nil {
		word := "frozen"
		if !r.New {
			word = "already frozen with equal contents"
		}
		u.printf("%s: %s: %s, %s, %s\n", f.Name, word, count(f.Packages, "package", "packages"), count(f.Sources, "source package", "source packages"), bytesText(f.Bytes))
		u.printf("manifest sha256:%s\n%s\n", f.Manifest, f.URL)
		if f.Packages+f.Sources == 0 {
			u.warning("%s holds no package", f.Name)
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
		packages += ", listed in " + count(r.Places, "place", "places") + " of signed indices"
	}
	u.fields("Verified", r.Ref, "Signed by", by, "Proven", packages, "Files", fmt.Sprintf("%d, %s read", r.Files, bytesText(r.Bytes)))
	if len(r.Relied) > 0 {
		u.heading("Relied on:")
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
	for _, n := range r.Notes {
		u.printf("note: %s\n", n)
	}
	if len(r.Faults) > 0 {
		u.printf("\n")
		u.faults(r.Faults)
		return
	}
	u.printf("everything holds\n")
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
		if verb == "imported" && !r.New {
			u.printf("%s: already here with equal contents\n", r.Name)
		} else {
			u.printf("%s: %s %s, %s\n", r.Name, verb, count(r.Files, "file", "files"), bytesText(r.Bytes))
		}
		for _, n := range r.Notes {
			u.printf("note: %s\n", n)
		}
	}
}

func (u *ui) recording(r *api.Recording) {
	state := "running"
	if r.Stopped != nil {
		state = "stopped " + timeText(*r.Stopped)
	}
	resigned := ""
	if r.Resigned {
		resigned = "by this server's key"
	}
	u.fields(
		"Recording", r.Name,
		"Started", timeText(r.Started),
		"State", state,
		"Signed", resigned,
		"Proxy", r.Proxy,
		"Files", fmt.Sprintf("%d, %s", r.Files, bytesText(r.Bytes)),
		"Digest", r.Digest,
	)
	if len(r.Mirrors) > 0 {
		u.printf("\n")
		rows := [][]string{{"MIRROR", "SNAPSHOT", "URL"}}
		for _, m := range r.Mirrors {
			rows = append(rows, []string{m.Mirror, m.Snapshot, m.URL})
		}
		u.table(rows...)
	}
	if len(r.Entries) > 0 {
		u.printf("\n")
		rows := [][]string{{"FIRST", "SIZE", "COUNT", "MIRROR", "PATH"}}
		for _, e := range r.Entries {
			rows = append(rows, []string{timeText(e.First), bytesText(e.Size), strconv.Itoa(e.Count), e.Mirror, e.Path})
		}
		u.table(rows...)
	}
	if len(r.Unfetched) > 0 {
		u.heading("Installed but never fetched through this recording:")
		for _, p := range r.Unfetched {
			u.printf("  %s\n", p)
		}
	}
	for _, w := range r.Warnings {
		u.printf("warning: %s\n", w)
	}
}

// recorded is one file of a recording that is followed.
func (u *ui) recorded(e api.RecordEntry) {
	if u.json {
		u.document(struct {
			Entry api.RecordEntry `json:"entry"`
		}{e})
	} else {
		u.printf("%s  %10s  %s %s\n", timeText(e.Last), bytesText(e.Size), e.Mirror, e.Path)
	}
	if err := u.out.Flush(); err != nil && u.failed == nil {
		u.failed = err
	}
}

func (u *ui) recordings(l *api.RecordList) {
	if len(l.Recordings) == 0 {
		u.printf("no recordings\n")
		return
	}
	rows := [][]string{{"RECORDING", "STARTED", "STOPPED", "FILES", "BYTES", "MIRRORS"}}
	for _, r := range l.Recordings {
		var mirrors []string
		for _, m := range r.Mirrors {
			mirrors = append(mirrors, m.Mirror)
		}
		rows = append(rows, []string{r.Name, timeText(r.Started), timePtr(r.Stopped), strconv.Itoa(r.Files), bytesText(r.Bytes), strings.Join(mirrors, ",")})
	}
	u.table(rows...)
}

func (u *ui) collected(r *api.GCResult) {
	if e := r.Explain; e != nil {
		state := "would go"
		if e.Keep {
			state = "stays"
		}
		u.fields("Blob", e.Digest, "Stored", yes(e.Stored), "Size", bytesText(e.Size), "State", state)
		for _, s := range e.Reasons {
			u.printf("  %s\n", s)
		}
		return
	}
	removed, put, deleted := "removed", "put", "deleted"
	if r.DryRun {
		removed, put, deleted = "would remove", "would put", "would delete"
	}
	for _, s := range r.Snapshots {
		u.printf("%s snapshot %s\n", removed, s)
	}
	u.printf("%s %s; %s %s (%s) in quarantine; %s %s (%s) from it\n",
		removed, count(len(r.Snapshots), "snapshot", "snapshots"), put, count(r.Blobs, "blob", "blobs"), bytesText(r.Bytes),
		deleted, count(r.Purged, "blob", "blobs"), bytesText(r.PurgedBytes))
	if r.DryRun {
		u.printf("nothing was changed (--dry-run)\n")
	}
}

func (u *ui) checked(r *api.FsckResult) {
	u.printf("%s, %s read\n", count(r.Blobs, "blob", "blobs"), bytesText(r.Bytes))
	u.faults(r.Faults)
	for _, d := range r.Repaired {
		u.printf("repaired: %s\n", d)
	}
	for _, d := range r.Lost {
		u.printf("lost: %s\n", d)
	}
	if len(r.Faults)+len(r.Lost) == 0 {
		u.printf("everything is whole\n")
	}
}

func (u *ui) key(k *api.KeyInfo) {
	expires := "never"
	if k.Expires != nil {
		expires = timeText(*k.Expires)
	}
	u.fields("Fingerprint", k.Fingerprint, "User id", k.UserID, "Algorithm", k.Algorithm, "Created", timeText(k.Created), "Expires", expires, "File", k.File)
}

func (u *ui) initialised(r *api.InitResult) {
	if r.File == "" {
		u.text(r.Text)
		return
	}
	for _, m := range r.Mirrors {
		u.printf("mirror %s: %s\n", m.Name, m.URL)
		for _, n := range m.Notes {
			u.printf("  note: %s\n", n)
		}
	}
	for _, f := range slices.Concat(r.Keys, r.Logins) {
		u.printf("wrote %s\n", f)
	}
	u.printf("wrote %s (%s)\nstart with: snapd --config %s\n", r.File, count(len(r.Mirrors), "mirror", "mirrors"), shellWord(r.File))
}

// skipped says on standard error what init did not take.
func (u *ui) skipped(list []api.InitSkip) {
	for _, s := range list {
		at := s.File
		if s.Line > 0 {
			at += ":" + strconv.Itoa(s.Line)
		}
		u.note("skipped %s: %s: %s", at, s.Text, s.Reason)
	}
}

func (u *ui) kits(l *api.KitList) {
	for _, k := range l.Kits {
		u.printf("%s: %s, sha256:%s\n", k.Path, bytesText(k.Size), k.SHA256)
		u.printf("  %d added, %d changed, %d removed; %s taken over without packing again\n", k.Added, k.Changed, k.Removed, bytesText(k.Copied))
		if k.URL != "" {
			u.printf("  served at %s\n", k.URL)
		}
	}
}

func (u *ui) udfs(l *api.UDFList) {
	rows := [][]string{{"FILE", "CHANNEL", "VERSION", "UPGRADE", "KIT"}}
	for _, f := range l.Files {
		rows = append(rows, []string{f.Path, f.Channel, f.Version, f.Upgrade, yes(f.Incremental)})
	}
	u.table(rows...)
}

// maxNames is how many names inspect lists of one kind.
const maxNames = 40

func (u *ui) inspected(r *iuk.Inspection) {
	u.fields("Format", r.Format, "Size", bytesText(r.Size))
	if p := r.Provenance; p != nil {
		u.fields(
			"Product", p.Product+" "+p.Arch,
			"From", p.Base.Version+" (sha256:"+p.Base.SHA256.String()+")",
			"To", p.New.Version+" (sha256:"+p.New.SHA256.String()+")",
			"Epoch", timeText(time.Unix(p.Epoch, 0)),
			"Writer", strconv.Itoa(p.WriterFormat),
		)
	}
	u.heading("Members:")
	var rows [][]string
	for _, m := range r.Members {
		rows = append(rows, []string{"  " + m.Path, bytesText(m.Size)})
	}
	u.table(rows...)
	u.names("Files that are deleted:", r.DeleteFiles)
	for _, d := range r.Diffs {
		u.printf("\n%s: %s, %s at %s blocks: %d files, %d directories, %s of content\n", d.Path, bytesText(d.Size), d.Compressor, bytesText(int64(d.BlockSize)), d.Files, d.Dirs, bytesText(d.Content))
		if len(d.Largest) > 0 {
			u.heading("Largest, as stored:")
			rows := [][]string{}
			for _, f := range d.Largest {
				rows = append(rows, []string{"  " + f.Path, bytesText(f.Stored), bytesText(f.Size)})
			}
			u.table(rows...)
		}
		if d.Known {
			u.names("Added:", d.Added)
			u.names("Changed:", d.Changed)
		} else {
			u.names("Added or changed:", d.Changed)
		}
		u.names("Removed:", d.Removed)
	}
}

// names lists some names, and says how many there are.
func (u *ui) names(heading string, list []string) {
	if len(list) == 0 {
		return
	}
	u.printf("\n%s %d\n", heading, len(list))
	for i, n := range list {
		if i == maxNames {
			u.printf("  and %d more (--json lists all)\n", len(list)-i)
			break
		}
		u.printf("  %s\n", n)
	}
}

func (u *ui) kitVerified(r *iuk.VerifyReport) {
	u.printf("the old image and the kit make the new image: %s, %d of them from the kit, %d hidden\n", count(r.Names, "name", "names"), r.FromKit, r.Whiteouts)
	if r.BootFiles > 0 {
		u.printf("%s as they should be\n", count(r.BootFiles, "boot file", "boot files"))
	}
	if r.Ignored > 0 {
		u.printf("%s only in content, as the kit says\n", count(r.Ignored, "file was compared", "files were compared"))
	}
	if r.Hidden > 0 {
		u.printf("%s of the new image cannot be shown by any overlay\n", count(r.Hidden, "character device 0:0", "character devices 0:0"))
	}
}

func (u *ui) applied(r *iuk.ApplyResult) {
	switch {
	case r.RolledBack:
		u.printf("restored the old state\n")
	case r.Resumed:
		u.printf("completed the unfinished upgrade\n")
	}
	u.names("Added:", r.Added)
	u.names("Replaced:", r.Replaced)
	u.names("Deleted:", r.Deleted)
	if r.Unchanged > 0 {
		u.printf("%s as the kit has them\n", count(r.Unchanged, "file was", "files were"))
	}
	if len(r.BootLoader) > 0 {
		u.heading("To install the boot loader:")
		for _, b := range r.BootLoader {
			u.printf("  %s\n", b)
		}
	}
}

func (u *ui) imageAdded(i *api.Image) {
	u.printf("%s: image %srecorded: %s, sha256:%s\n", i.Name, i.Variant+space(i.Variant), bytesText(i.Size), i.SHA256)
}

func space(s string) string {
	if s == "" {
		return ""
	}
	return " "
}

func (u *ui) rebuilt(r *api.RebuildResult) {
	if r.Equal {
		u.printf("%s: equal, sha256:%s\n", r.Name, r.Built)
		return
	}
	u.printf("%s: recorded sha256:%s\n%s: built    sha256:%s\n", r.Name, r.Recorded, r.Name, r.Built)
	rows := [][]string{{"KIND", "PATH", "RECORDED", "BUILT"}}
	for _, f := range r.Files {
		rows = append(rows, []string{f.Kind, f.Path, f.Recorded, f.Built})
	}
	u.table(rows...)
	if r.More > 0 {
		u.printf("and %d more\n", r.More)
	}
}

// some is a number that may not be known: nothing for 0.
func some(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
