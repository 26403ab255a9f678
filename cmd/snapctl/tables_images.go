package main

import (
	"strconv"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/iuk"
)

func (u *ui) images(l *api.ImageList) {
	if len(l.Images) == 0 {
		u.printf("no images\n")
		return
	}
	rows := [][]string{{"FROZEN", "VARIANT", "SIZE", "SHA256"}}
	for _, i := range l.Images {
		rows = append(rows, []string{i.Name, i.Variant, bytesText(i.Size), i.SHA256})
	}
	u.table(rows...)
}

func (u *ui) kits(l *api.KitList) {
	for _, k := range l.Kits {
		u.printf("%s: %s, sha256:%s\n", k.Path, bytesText(k.Size), k.SHA256)
		u.printf("  %d added, %d changed, %d removed; %s copied without recompression\n", k.Added, k.Changed, k.Removed, bytesText(k.Copied))
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

// ran shows the result of a run: its outputs if they are kept, and the differences that
// a check found.
func (u *ui) ran(r *api.RunResult, kept bool) {
	if kept {
		rows := [][]string{{"OUTPUT", "SIZE", "SHA256"}}
		for _, o := range r.Outputs {
			switch {
			case o.SHA256 != "":
				rows = append(rows, []string{o.Path, bytesText(o.Size), o.SHA256})
			case o.Target != "":
				rows = append(rows, []string{o.Path + " -> " + o.Target, "", ""})
			}
		}
		u.table(rows...)
		u.printf("recorded in %s\n", r.Record)
	}
	if r.Check == nil {
		return
	}
	for _, v := range r.Check.Varied {
		u.printf("varied %s: %s, %s\n", v.What, orWord(v.First, "(none)"), v.Second)
	}
	for _, s := range r.Check.Same {
		u.printf("not varied %s\n", s)
	}
	if r.Check.Equal {
		u.printf("both runs made the same %s\n", count(len(r.Outputs), "output", "outputs"))
	}
	for _, d := range r.Check.Differences {
		u.printf("%s differs:\n  first  %s\n  second %s\n", d.Path, orWord(d.First, "(missing)"), orWord(d.Second, "(missing)"))
	}
}

// maxNames is how many names of one kind inspect lists.
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
	u.names("Deleted files:", r.DeleteFiles)
	for _, d := range r.Diffs {
		u.printf("\n%s: %s, %s at %s blocks: %d files, %d directories, %s of content\n", d.Path, bytesText(d.Size), d.Compressor, bytesText(int64(d.BlockSize)), d.Files, d.Dirs, bytesText(d.Content))
		if len(d.Largest) > 0 {
			u.heading("Largest stored files:")
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

// names prints the first names of a list and the number of the others.
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
	u.printf("the old image and the kit make the new image: %s, of which the kit provides %d and hides %d\n", count(r.Names, "name", "names"), r.FromKit, r.Whiteouts)
	if r.BootFiles > 0 {
		u.printf("%s as expected\n", count(r.BootFiles, "boot file", "boot files"))
	}
	if r.Ignored > 0 {
		u.printf("%s by content only, as the kit says\n", count(r.Ignored, "file was compared", "files were compared"))
	}
	if r.Hidden > 0 {
		u.printf("%s of the new image cannot exist in an overlay\n", count(r.Hidden, "character device 0:0", "character devices 0:0"))
	}
}

func (u *ui) applied(r *iuk.ApplyResult) {
	switch {
	case r.RolledBack:
		u.printf("restored the old state\n")
	case r.Resumed:
		u.printf("completed the interrupted upgrade\n")
	}
	u.names("Added:", r.Added)
	u.names("Replaced:", r.Replaced)
	u.names("Deleted:", r.Deleted)
	if r.Unchanged > 0 {
		u.printf("%s already up to date\n", count(r.Unchanged, "file was", "files were"))
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
	if r.Attestation != nil {
		defer u.printf("attested in %s\n", r.Attestation.File)
	}
	if r.Comparison != "" {
		defer u.printf("differences on the page %s of the server\n", r.Comparison)
	}
	if r.Equal {
		u.printf("%s: equal, sha256:%s\n", r.Name, r.Built)
	} else {
		u.printf("%s: recorded sha256:%s\n%s: built    sha256:%s\n", r.Name, r.Recorded, r.Name, r.Built)
	}
	if r.Compare != nil {
		u.compared(r.Compare)
	}
}

// some formats a number, or returns "" for 0, which means unknown.
func some(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
