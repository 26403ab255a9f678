package rpmmd

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"example.org/snapd/internal/excerpt"
)

// MaxRepoMD limits the size of repomd.xml, in bytes. Real ones have a few thousand.
const MaxRepoMD = 4 << 20

// maxData limits the number of data entries.
const maxData = 1024

// RepoMD is repomd.xml, which lists the files of a repository.
type RepoMD struct {
	Revision string // usually Unix seconds
	Tags     []Tag
	Data     []Data // in document order
}

// Tag is a child of <tags>: "content", "repo" or "distro".
type Tag struct {
	Name  string
	CPEID string // only of "distro"
	Value string
}

// Data is one metadata file.
type Data struct {
	Type string // "primary", "group_gz", …
	// Checksum is the strongest checksum of the file. OpenChecksum is the strongest
	// of the uncompressed content and HeaderChecksum of the header of a zchunk file;
	// they are zero if absent.
	Checksum, OpenChecksum, HeaderChecksum Checksum
	Href                                   string // as written
	Base                                   string // xml:base, "" when absent
	Path                                   string // Href as a checked path relative to the repository
	Timestamp                              int64  // Unix seconds, 0 when absent
	Size, OpenSize, HeaderSize             int64  // bytes, -1 when absent
	// Odd means that the checksum has capitals or white space. dnf compares checksums
	// as text, and so never accepts such a file.
	Odd             bool
	DatabaseVersion string // only of SQLite files
}

// ParseRepoMD parses repomd.xml. It refuses hostile locations (ErrHostile),
// data types with two different files, and entries without a location or checksum. It
// accepts weak checksums, which Data.Check refuses.
func ParseRepoMD(doc []byte) (*RepoMD, error) {
	if len(doc) > MaxRepoMD {
		return nil, fmt.Errorf("repomd.xml: size %w of %d bytes", ErrTooLarge, MaxRepoMD)
	}
	md, err := parseRepoMD(newReaderSize(bytes.NewReader(doc), len(doc)+1))
	if err != nil {
		return nil, fmt.Errorf("repomd.xml: %w", err)
	}
	return md, nil
}

func parseRepoMD(r *reader) (*RepoMD, error) {
	md := &RepoMD{}
	if err := r.root("repomd"); err != nil {
		return nil, err
	}
	err := r.children(func() error {
		switch string(local(r.name)) {
		case "revision":
			v, err := r.content()
			md.Revision = strings.TrimSpace(v)
			return err
		case "tags":
			return r.children(func() error {
				t := Tag{Name: string(r.name), CPEID: r.attrString("cpeid")}
				var err error
				t.Value, err = r.content()
				if len(md.Tags) == maxData {
					return fmt.Errorf("number of tags %w of %d", ErrTooLarge, maxData)
				}
				md.Tags = append(md.Tags, t)
				return err
			})
		case "data":
			d := Data{Type: r.attrString("type"), Size: -1, OpenSize: -1, HeaderSize: -1}
			if d.Type == "" {
				return r.skip() // clients could not request it
			}
			if len(md.Data) == maxData {
				return fmt.Errorf("number of data entries %w of %d", ErrTooLarge, maxData)
			}
			if err := d.parse(r); err != nil {
				return fmt.Errorf("data %s: %w", excerpt.Of(d.Type), err)
			}
			if other := md.Find(d.Type); other != nil {
				if other.Path != d.Path || other.Checksum != d.Checksum {
					return r.fail("data type %q is listed twice, with different files", excerpt.Of(d.Type))
				}
				return nil
			}
			md.Data = append(md.Data, d)
			return nil
		}
		return r.skip()
	})
	if err != nil {
		return nil, err
	}
	return md, r.finish()
}

func (d *Data) parse(r *reader) error {
	err := r.children(func() error {
		var err error
		switch string(local(r.name)) {
		case "checksum":
			err = d.checksum(r, &d.Checksum)
		case "open-checksum":
			err = d.checksum(r, &d.OpenChecksum)
		case "header-checksum":
			err = d.checksum(r, &d.HeaderChecksum)
		case "location":
			if d.Href != "" {
				return r.fail("two locations")
			}
			d.Href, d.Base = r.attrString("href"), r.attrString("xml:base")
			if d.Path, err = CleanHref(d.Href); err != nil {
				return err
			}
			err = r.skip()
		case "timestamp":
			d.Timestamp, err = r.informativeSeconds()
		case "size":
			d.Size, err = r.count()
		case "open-size":
			d.OpenSize, err = r.count()
		case "header-size":
			d.HeaderSize, err = r.count()
		case "database_version":
			d.DatabaseVersion, err = r.content()
		default:
			err = r.skip()
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case d.Href == "":
		return r.fail("no location")
	case d.Checksum.IsZero():
		return r.fail("no checksum")
	}
	return nil
}

// checksum reads a checksum element into to, unless that has a stronger one.
func (d *Data) checksum(r *reader, to *Checksum) error {
	typ := r.attrString("type")
	v, err := r.content()
	if err != nil {
		return err
	}
	c, err := ParseChecksum(typ, v)
	if err != nil {
		return err
	}
	if to.IsZero() || !to.Strong() && c.Strong() || c.Strong() && c.Type == "sha256" {
		*to = c
		if to == &d.Checksum {
			d.Odd = v != c.Hex
		}
	}
	return nil
}

// Check returns an ErrWeak that names the file if it has no strong checksum.
func (d *Data) Check() error {
	if err := d.Checksum.Check("data " + excerpt.Of(d.Type)); err != nil {
		return fmt.Errorf("repomd.xml: %w", err)
	}
	return nil
}

// Find returns the data entry of a type, or nil if repomd.xml does not list the type.
func (md *RepoMD) Find(typ string) *Data {
	for i := range md.Data {
		if md.Data[i].Type == typ {
			return &md.Data[i]
		}
	}
	return nil
}

// Time returns the date of the metadata in Unix seconds: the newest timestamp of a data
// entry, or else the revision if it is a number of seconds, or else 0.
func (md *RepoMD) Time() int64 {
	var t int64
	for i := range md.Data {
		t = max(t, md.Data[i].Timestamp)
	}
	if n, err := strconv.ParseInt(md.Revision, 10, 64); t == 0 && err == nil && n > 0 && n < math.MaxUint32 {
		t = n
	}
	return t
}

// HashNamed reports whether the names of all metadata files contain their checksums, so
// that files of different versions of repomd.xml can exist at the same time.
func (md *RepoMD) HashNamed() bool {
	for i := range md.Data {
		d := &md.Data[i]
		if !strings.Contains(strings.ToLower(d.Path[strings.LastIndexByte(d.Path, '/')+1:]), d.Checksum.Hex) {
			return false
		}
	}
	return len(md.Data) > 0
}

// Format returns repomd.xml. Its output depends only on md.
func (md *RepoMD) Format() []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">` + "\n")
	fmt.Fprintf(&b, "  <revision>%s</revision>\n", escape(md.Revision))
	if len(md.Tags) > 0 {
		b.WriteString("  <tags>\n")
		for _, t := range md.Tags {
			cpe := ""
			if t.CPEID != "" {
				cpe = ` cpeid="` + escape(t.CPEID) + `"`
			}
			fmt.Fprintf(&b, "    <%s%s>%s</%s>\n", t.Name, cpe, escape(t.Value), t.Name)
		}
		b.WriteString("  </tags>\n")
	}
	for i := range md.Data {
		d := &md.Data[i]
		fmt.Fprintf(&b, "  <data type=\"%s\">\n", escape(d.Type))
		for _, c := range []struct {
			name string
			sum  Checksum
		}{{"checksum", d.Checksum}, {"open-checksum", d.OpenChecksum}, {"header-checksum", d.HeaderChecksum}} {
			if !c.sum.IsZero() {
				fmt.Fprintf(&b, "    <%s type=\"%s\">%s</%s>\n", c.name, c.sum.Type, c.sum.Hex, c.name)
			}
		}
		base := ""
		if d.Base != "" {
			base = ` xml:base="` + escape(d.Base) + `"`
		}
		fmt.Fprintf(&b, "    <location%s href=\"%s\"/>\n", base, escape(d.Href))
		if d.Timestamp != 0 {
			fmt.Fprintf(&b, "    <timestamp>%d</timestamp>\n", d.Timestamp)
		}
		for _, n := range []struct {
			name string
			v    int64
		}{{"size", d.Size}, {"open-size", d.OpenSize}, {"header-size", d.HeaderSize}} {
			if n.v >= 0 {
				fmt.Fprintf(&b, "    <%s>%d</%s>\n", n.name, n.v, n.name)
			}
		}
		if d.DatabaseVersion != "" {
			fmt.Fprintf(&b, "    <database_version>%s</database_version>\n", escape(d.DatabaseVersion))
		}
		b.WriteString("  </data>\n")
	}
	b.WriteString("</repomd>\n")
	return b.Bytes()
}

// root advances to the root element, which must have the name.
func (r *reader) root(name string) error {
	if err := r.next(); err != nil {
		return err
	}
	if r.kind != tokStart || string(local(r.name)) != name {
		return r.fail("root element <%s>, expected <%s>", quote(r.name), name)
	}
	return nil
}

// children calls f at the start tag of each child of the element whose start
// tag is current. f must read the child to its end. Text between children is
// skipped.
func (r *reader) children(f func() error) error {
	depth := r.depth()
	for {
		if err := r.next(); err != nil {
			return err
		}
		switch r.kind {
		case tokStart:
			if err := f(); err != nil {
				return err
			}
			if r.depth() != depth {
				panic("rpmmd: a child was not read to its end")
			}
		case tokEnd:
			return nil
		}
	}
}

// finish returns an error if anything follows the root element.
func (r *reader) finish() error {
	if err := r.next(); err != nil {
		return err
	}
	if r.kind != tokEOF {
		return r.fail("more after the root element")
	}
	return nil
}

// count reads the text of an element as a number of bytes.
func (r *reader) count() (int64, error) {
	name := string(r.name)
	v, err := r.content()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 63)
	if err != nil {
		return 0, r.fail("<%s> %q is not a number of bytes", name, excerpt.Of(v))
	}
	return int64(n), nil
}

// informativeSeconds is like seconds, but returns 0 if the text is not a number, because
// nothing depends on it.
func (r *reader) informativeSeconds() (int64, error) {
	v, err := r.content()
	whole, _, _ := strings.Cut(strings.TrimSpace(v), ".")
	n, perr := strconv.ParseUint(whole, 10, 40)
	if perr != nil {
		n = 0
	}
	return int64(n), err
}

// seconds reads the text of an element as Unix seconds. Old programs write a
// fraction.
func (r *reader) seconds() (int64, error) {
	name := string(r.name)
	v, err := r.content()
	if err != nil {
		return 0, err
	}
	whole, _, _ := strings.Cut(strings.TrimSpace(v), ".")
	n, err := strconv.ParseUint(whole, 10, 40)
	if err != nil {
		return 0, r.fail("<%s> %q is not a number of seconds", name, excerpt.Of(v))
	}
	return int64(n), nil
}
