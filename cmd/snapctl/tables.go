package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/api"
)

func (u *ui) status(s *api.Status) {
	fields := []string{
		"Version", s.Version,
		"Serving", s.PublicURL,
		"Listening", s.Listen,
		"Data", s.DataDir,
		"Configuration", s.ConfigFile,
		"Key", s.Key.Fingerprint,
		"Free", bytesText(s.Free) + " (syncs stop below " + bytesText(s.Reserve) + ")",
		"Blobs", fmt.Sprintf("%d, %s", s.Blobs, bytesText(s.BlobBytes)),
		"Indices", bytesText(s.IndexBytes) + " of the blobs are upstream indices",
		"Metadata", bytesText(s.MetaBytes) + " in pages, " + bytesText(s.MetaData) + " in keys and values",
		"Snapshots", strconv.Itoa(s.Snapshots),
		"Frozen", strconv.Itoa(s.Frozen),
		"Recordings", strconv.Itoa(s.Recordings),
	}
	if s.ImageBytes > 0 {
		fields = append(fields, "Images", bytesText(s.ImageBytes)+" of the blobs are images of freezes")
	}
	if s.KitBytes > 0 {
		fields = append(fields, "Kits", bytesText(s.KitBytes)+" of the blobs are upgrade kits")
	}
	if l := s.Log; l != nil {
		fields = append(fields, "Log", fmt.Sprintf("%s, %s", l.Origin, count(int(l.Size), "entry", "entries")), "Witnessed", l.Witnessed)
	}
	if s.Quarantined > 0 {
		fields = append(fields, "Quarantined", count(s.Quarantined, "blob", "blobs"))
	}
	u.fields(fields...)
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
	u.ages(s.Mirrors)
	for i, m := range slices.DeleteFunc(slices.Clone(s.Mirrors), func(m api.MirrorStatus) bool { return m.HistoryPerYear == 0 }) {
		if i == 0 {
			u.printf("\n")
		}
		u.printf("The history of %s takes %s of indices a year, measured over %s.\n", m.Name, bytesText(m.HistoryPerYear), count(m.HistoryDays, "day", "days"))
	}
	if len(s.Nodes) > 0 {
		u.printf("\n")
		u.nodes(s)
	}
	if len(s.Leases) > 0 {
		u.printf("\n")
		rows := [][]string{{"LEADS", "HOLDER", "UNTIL"}}
		for _, l := range s.Leases {
			rows = append(rows, []string{l.Name, l.Holder, timeText(l.Expires)})
		}
		u.table(rows...)
	}
}

// ages prints how old each suite is.
func (u *ui) ages(list []api.MirrorStatus) {
	rows := [][]string{{"MIRROR", "SUITE", "DATE", "AGE", "STATE"}}
	for _, m := range list {
		for _, a := range m.Ages {
			age, state := "", "ok"
			if a.Date != nil {
				age = ageText(time.Duration(a.Age) * time.Second)
			}
			if a.Stale {
				state = "stale (max_age " + m.MaxAge + ")"
			}
			rows = append(rows, []string{m.Name, a.Suite, timePtr(a.Date), age, state})
		}
	}
	if len(rows) > 1 {
		u.printf("\n")
		u.table(rows...)
	}
}

// ageText is a length of time in its two largest units.
func ageText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}

// nodes prints the nodes that share an installation.
func (u *ui) nodes(s *api.Status) {
	rows := [][]string{{"NODE", "ROLE", "VERSION", "SEEN", "LAG", "CACHE", "STATE"}}
	for _, n := range s.Nodes {
		state := "up"
		switch {
		case n.Name == s.Node:
			state = "this one"
		case !n.Up:
			state = "away"
		}
		rows = append(rows, []string{n.Name, n.Role, n.Version, timeText(n.Seen), fmt.Sprintf("%.1f s", n.Lag), bytesText(n.CacheBytes) + " of " + bytesText(n.CacheSize), state})
	}
	u.table(rows...)
}

func (u *ui) mirrors(list []api.MirrorStatus) {
	if len(list) == 0 {
		u.printf("no mirrors are configured\n")
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
		case m.Stale:
			state = "stale"
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
	stored := ""
	if m.Stored != nil {
		stored = fmt.Sprintf("%d package files of all snapshots, %s", m.Stored.Files, bytesText(m.Stored.Bytes))
	}
	u.fields(
		"Mirror", m.Name,
		"Type", m.Type,
		"URLs", strings.Join(m.URLs, " "),
		"Components", strings.Join(m.Components, " "),
		"Architectures", strings.Join(m.Architectures, " "),
		"Download", m.Download,
		"Sources", yes(m.Sources),
		"Interval", orWord(m.Interval, "on request only"),
		"Keep", orWord(m.Keep, "for ever"),
		"Keyring", strings.Join(m.Keyring, " "),
		"Snapshots", strconv.Itoa(m.Snapshots),
		"Latest", m.Latest,
		"Stored", stored,
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

// synced prints the result for each mirror; it prints failures to standard error.
func (u *ui) synced(r *api.SyncResult) {
	for _, m := range r.Mirrors {
		switch {
		case m.Error != nil:
		case m.Started:
			u.printf("%s: sync started\n", m.Mirror)
		case r.DryRun && m.New && slices.Equal(m.Suites, []string{"."}): // rpm
			u.printf("%s: would make a snapshot\n", m.Mirror)
		case r.DryRun && m.New:
			u.printf("%s: would make a snapshot: %s changed\n", m.Mirror, strings.Join(m.Suites, ", "))
		case m.New:
			u.printf("%s: new snapshot %s (%s changed; %s, %s fetched)\n", m.Mirror, m.Snapshot, count(m.Changed, "stanza", "stanzas"), count(m.Files, "file", "files"), bytesText(m.Bytes))
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
		for _, f := range l.Frozen {
			if f.Damage != "" {
				u.printf("%s is damaged: %s (snapctl fsck --repair, or snapctl import of an export of it)\n", f.Name, f.Damage)
			}
		}
	}
	if len(l.Snapshots)+len(l.Frozen) == 0 {
		u.printf("no snapshots\n")
	}
	for _, w := range l.Warnings {
		u.warning("%s", w)
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
			"Imported from", s.FromURL,
			"Pinned", pinned(*s),
			"Used by", strings.Join(s.UsedBy, " "),
		)
		u.suites(s.Suites)
	}
	if p := r.Package; p != nil {
		u.shownPackage(p)
	}
	if f := r.Frozen; f != nil {
		u.frozen(f)
	}
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

// at returns the timestamp of a snapshot ID.
func at(id string) string {
	if _, t, ok := strings.Cut(id, "@"); ok {
		return t
	}
	return id
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
		u.heading("Installed but not downloaded through this recording:")
		for _, p := range r.Unfetched {
			u.printf("  %s\n", p)
		}
	}
	for _, w := range r.Warnings {
		u.printf("warning: %s\n", w)
	}
}

// recorded prints a file of a recording, for --follow.
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
	if r.Indices > 0 {
		u.printf("%s (%s) will be made from stanzas, whose order takes %s\n", count(r.Indices, "compressed index", "compressed indices"), bytesText(r.IndexBytes), bytesText(r.OrderBytes))
	}
	if r.DryRun {
		u.printf("nothing was changed (--dry-run)\n")
	}
}

func (u *ui) checked(r *api.FsckResult) {
	u.printf("%s, %s read\n", count(r.Blobs, "blob", "blobs"), bytesText(r.Bytes))
	few(u, "repaired", r.Repaired, func(d string) { u.printf("repaired: %s\n", d) })
	few(u, "not rebuilt", r.NotRebuilt, func(d string) { u.printf("not rebuilt: %s\n", d) })
	kinds := map[string][]api.VerifyFault{}
	var order []string
	for _, f := range r.Faults {
		if kinds[f.Kind] == nil {
			order = append(order, f.Kind)
		}
		kinds[f.Kind] = append(kinds[f.Kind], f)
	}
	for _, k := range order {
		few(u, k, kinds[k], func(f api.VerifyFault) { u.faults([]api.VerifyFault{f}) })
	}
	switch {
	case len(r.Faults) == 0 && len(r.Repaired) > 0:
		u.printf("no faults remain\n")
	case len(r.Faults) == 0:
		u.printf("no faults found\n")
	}
}

// shownOfAKind is how many lines of a kind are printed; the rest is only counted.
const shownOfAKind = 10

// few prints the first items of a list and the number of the others.
func few[T any](u *ui, kind string, list []T, print func(T)) {
	for _, x := range list[:min(shownOfAKind, len(list))] {
		print(x)
	}
	if more := len(list) - shownOfAKind; more > 0 {
		u.printf("and %d more: %s (all of them: --json)\n", more, kind)
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

// skipped prints the sources that init omitted to standard error.
func (u *ui) skipped(list []api.InitSkip) {
	for _, s := range list {
		at := s.File
		if s.Line > 0 {
			at += ":" + strconv.Itoa(s.Line)
		}
		u.note("skipped %s: %s: %s", at, s.Text, s.Reason)
	}
}
