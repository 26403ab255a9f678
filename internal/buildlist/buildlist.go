// Package buildlist recognises and parses build manifests: lists of packages, written
// by other tools about a build, that a freeze shall contain.
//
// All formats are parsed to the same list of entries. The caller names the format, or
// it is recognised from the first bytes. A line-based format must accept every line. If
// several formats do, the error names them; there is no guess. Content that is not an
// installed package (headers, keys, other files, removed packages) is skipped with a
// note, never silently. A line that fits no rule is an error that quotes it.
//
// Build manifests come from outside. Sizes, counts, lengths and nesting are
// bounded; line and JSON formats are read as a stream.
package buildlist

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch/remote"
)

// Format is the name of a format, as given to `--format`.
type Format string

// The formats, in the order in which help lists them.
const (
	List           Format = "list"            // lines name[:arch]=version, or name[:arch] alone
	Tails          Format = "tails"           // the build manifest of Tails (YAML)
	Buildinfo      Format = "buildinfo"       // deb-buildinfo(5), plain or clear-signed
	DpkgStatus     Format = "dpkg-status"     // /var/lib/dpkg/status, or a status.d
	DpkgQuery      Format = "dpkg-query"      // dpkg-query -W, dpkg -l, Ubuntu's .manifest
	DpkgSelections Format = "dpkg-selections" // dpkg --get-selections
	AptList        Format = "apt-list"        // apt list --installed
	AptHistory     Format = "apt-history"     // /var/log/apt/history.log
	Mmdebstrap     Format = "mmdebstrap"      // lines "name version [arch]", or mmdebstrap --simulate
	Debootstrap    Format = "debootstrap"     // debootstrap --print-debs, or its deburis file
	PrintURIs      Format = "print-uris"      // apt-get --print-uris
	SHA256Sums     Format = "sha256sums"      // sha256sum(1) and its kin, of package files
	SPDX           Format = "spdx"            // SPDX 2.2 and 2.3, JSON and tag-value
	CycloneDX      Format = "cyclonedx"       // CycloneDX 1.4 to 1.7 JSON
	Syft           Format = "syft"            // syft's own JSON
	RPMQA          Format = "rpm-qa"          // rpm -qa, also in columns; dnf list; dnf history userinstalled
	RPMQI          Format = "rpm-qi"          // rpm -qi, dnf info --installed
	DNFHistory     Format = "dnf-history"     // dnf history info
	RPMsLock       Format = "rpms-lock"       // rpms.lock.yaml, version 1

	ReproEnv        Format = "repro-env"        // repro-env.lock (TOML), of the system debian
	RulesDistroless Format = "rules-distroless" // lock files of rules_distroless, versions 1 and 2
	Mkosi           Format = "mkosi"            // mkosi's manifest in JSON, version 1
)

// Formats lists every format.
func Formats() []Format {
	return []Format{List, Tails, Buildinfo, DpkgStatus, DpkgQuery, DpkgSelections, AptList, AptHistory, Mmdebstrap,
		Debootstrap, PrintURIs, SHA256Sums, SPDX, CycloneDX, Syft, RPMQA, RPMQI, DNFHistory, RPMsLock,
		ReproEnv, RulesDistroless, Mkosi}
}

// Ecosystem is the package manager that an entry belongs to.
type Ecosystem string

const (
	Any Ecosystem = "" // the manifest does not say
	Deb Ecosystem = "deb"
	RPM Ecosystem = "rpm"
)

// Entry is one package of a build manifest. A field that the manifest does not have is
// empty, and matches anything.
type Entry struct {
	Ecosystem Ecosystem `json:"ecosystem,omitempty"`
	// Name of the package. Empty only where a digest identifies the entry.
	Name string `json:"name,omitempty"`
	// Version as the ecosystem writes it: "1:2.3-4"; rpm:
	// "[epoch:]version-release", without an epoch of 0.
	Version string `json:"version,omitempty"`
	// EpochUnknown means that the format does not record epochs (file names, rpm -qa),
	// so that Version matches with any epoch.
	EpochUnknown bool `json:"epoch_unknown,omitempty"`
	// Arch is "amd64", "all", "x86_64", "noarch"; of a source package "source" or
	// "src".
	Arch string `json:"arch,omitempty"`
	// Source means a source package or one file of it, not a binary package.
	Source bool `json:"source,omitempty"`

	// Digests of the package file, lower-case hex.
	SHA256 string `json:"sha256,omitempty"`
	SHA512 string `json:"sha512,omitempty"`
	SHA1   string `json:"sha1,omitempty"`
	MD5    string `json:"md5,omitempty"`
	Size   int64  `json:"size"` // of the package file in bytes; -1: unknown

	Path string `json:"path,omitempty"` // file name or path of the package file, as written
	URL  string `json:"url,omitempty"`  // where it came from, redacted
	// Origin is the manifest's name for the archive: a suite, a repository id or a
	// distribution. It is shown but not matched.
	Origin string `json:"origin,omitempty"`
	// SourceName and SourceVersion name the source package that it was built from.
	SourceName    string `json:"source_name,omitempty"`
	SourceVersion string `json:"source_version,omitempty"`

	Line int    `json:"line"` // where the entry starts, from 1
	Raw  string `json:"raw"`  // the entry as written, shortened
}

// String returns "name:arch=version", or the file or digest of an entry without a
// name.
func (e Entry) String() string {
	s := e.Name
	switch {
	case s == "" && e.Path != "":
		return e.Path
	case s == "":
		return e.SHA256
	}
	if e.Arch != "" {
		s += ":" + e.Arch
	}
	if e.Version != "" {
		s += "=" + e.Version
	}
	return s
}

// Note describes a part of a build manifest that was skipped.
type Note struct {
	Line int    `json:"line,omitempty"` // 0: the manifest as a whole
	Text string `json:"text"`
}

// Manifest is a parsed build manifest.
type Manifest struct {
	Format Format     `json:"format"`
	File   string     `json:"file"`
	Digest cas.Digest `json:"digest"` // SHA-256 of the file's bytes
	Size   int64      `json:"size"`   // of the file in bytes
	// Arch is the architecture of the machine, if the manifest has it. An entry without
	// Arch is of this architecture or of all ("all", "noarch").
	Arch string `json:"arch,omitempty"`
	// References are the serials of archives, by archive (Tails).
	References map[string]string `json:"references,omitempty"`
	// Entries are in the order of the file. Of entries that differ only in Path, URL,
	// Origin, Line and Raw, only the first is kept.
	Entries []Entry `json:"entries"`
	// Notes are the first MaxNotes notes; NoteCount counts all.
	Notes     []Note `json:"notes,omitempty"`
	NoteCount int    `json:"note_count,omitempty"`
}

// Limits of a build manifest.
const (
	MaxSize    = 512 << 20 // bytes of a build manifest
	MaxYAML    = 8 << 20   // bytes of a YAML document, which is held in memory
	MaxTOML    = 8 << 20   // bytes of a TOML document, likewise
	MaxLine    = 1 << 20   // bytes of a line
	MaxElement = 32 << 20  // bytes of an element of a JSON array, which is held in memory
	MaxEntries = 1 << 19   // entries
	MaxNotes   = 1000      // notes kept
	maxField   = 1024      // bytes of a name, version, architecture
	maxURL     = 8192      // bytes of a path or URL
	maxRaw     = 200       // bytes of Entry.Raw
	maxDepth   = 100       // of nested YAML and JSON
	maxNodes   = 1 << 20   // characters of a YAML document that can start a node
	headSize   = 128 << 10 // bytes from which a format is recognised
)

var (
	// ErrMalformed means that a line or element does not follow the format. Every
	// such error is a *SyntaxError.
	ErrMalformed = errclass.New(errclass.Usage, "malformed build manifest")
	// ErrUnrecognised means that the content fits no format.
	ErrUnrecognised = errclass.New(errclass.Usage, "build manifest format not recognised")
	// ErrAmbiguous means that the content fits several formats: the caller must name
	// one. Every such error is an *AmbiguousError.
	ErrAmbiguous = errclass.New(errclass.Usage, "build manifest format ambiguous")
	// ErrEmpty means that the manifest contains no package. Such an error is also
	// ErrMalformed, or ErrUnrecognised if no format fits.
	ErrEmpty = errclass.New(errclass.Usage, "build manifest without packages")
	// ErrTooLarge means that a limit of this package is exceeded.
	ErrTooLarge = errclass.New(errclass.Usage, "build manifest too large")
)

// SyntaxError is an error at a line of a build manifest that does not follow the
// format.
type SyntaxError struct {
	File     string
	Line     int // from 1; 0: the file as a whole
	Expected string
	Found    string // as written, shortened; quoted by Error
}

func (e *SyntaxError) Error() string {
	found := "nothing"
	if e.Found != "" {
		found = fmt.Sprintf("%q", e.Found)
	}
	if e.Line == 0 {
		return fmt.Sprintf("%s: expected %s, found %s", e.File, e.Expected, found)
	}
	return fmt.Sprintf("%s:%d: expected %s, found %s", e.File, e.Line, e.Expected, found)
}

// Is makes errors.Is(err, ErrMalformed) true.
func (e *SyntaxError) Is(target error) bool { return target == ErrMalformed }

// emptyError marks an error as ErrEmpty without changing its text.
type emptyError struct{ error }

func (e *emptyError) Unwrap() error { return e.error }

// Is makes errors.Is(err, ErrEmpty) true.
func (e *emptyError) Is(target error) bool { return target == ErrEmpty }

// AmbiguousError is a build manifest that fits several formats.
type AmbiguousError struct {
	File       string
	Candidates []Format
}

func (e *AmbiguousError) Error() string {
	names := make([]string, len(e.Candidates))
	for i, c := range e.Candidates {
		names[i] = string(c)
	}
	return fmt.Sprintf("%s fits the formats %s: choose one with --format", e.File, strings.Join(names, " and "))
}

// Is makes errors.Is(err, ErrAmbiguous) true.
func (e *AmbiguousError) Is(target error) bool { return target == ErrAmbiguous }

// Parse parses a build manifest. name is the file's name in errors. If format is empty,
// Parse recognises it. Parse reads r to its end. Its errors wrap ErrMalformed,
// ErrUnrecognised, ErrAmbiguous, ErrEmpty or ErrTooLarge, or are errors of r.
func Parse(name string, r io.Reader, format Format) (*Manifest, error) {
	h := sha256.New()
	limited := &limitReader{r: r, left: MaxSize, file: name}
	br := bufio.NewReaderSize(io.TeeReader(limited, h), headSize)
	head, err := br.Peek(headSize)
	switch {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, readError(name, err)
	}
	if format == "" {
		if format, err = Recognise(name, head); err != nil {
			return nil, err
		}
	}
	p := &parser{
		file: name,
		in:   br,
		head: head,
		m:    &Manifest{Format: format, File: name},
		seen: make(map[key]struct{}),
	}
	if err := p.parse(); err != nil {
		return nil, err
	}
	// Parsers of lines and JSON may stop before the last bytes.
	if _, err := io.Copy(io.Discard, br); err != nil {
		return nil, readError(name, err)
	}
	if len(p.m.Entries) == 0 {
		return nil, &emptyError{&SyntaxError{File: name, Expected: fmt.Sprintf("packages (%s)", format)}}
	}
	p.m.Digest = cas.Digest(h.Sum(nil))
	p.m.Size = MaxSize - limited.left
	return p.m, nil
}

func readError(name string, err error) error {
	if errors.Is(err, ErrTooLarge) {
		return err
	}
	return fmt.Errorf("read build manifest %s: %w", name, err)
}

// limitReader fails with ErrTooLarge after left bytes, where io.LimitReader would
// return io.EOF.
type limitReader struct {
	r    io.Reader
	left int64
	file string
}

func (l *limitReader) Read(b []byte) (int, error) {
	if int64(len(b)) > l.left+1 {
		b = b[:l.left+1]
	}
	n, err := l.r.Read(b)
	if int64(n) > l.left {
		return 0, fmt.Errorf("read build manifest %s: more than %d bytes: %w", l.file, int64(MaxSize), ErrTooLarge)
	}
	l.left -= int64(n)
	return n, err
}

// key is a digest of the fields that make two entries equal.
type key [sha256.Size]byte

func (e *Entry) key() key {
	file := ""
	if e.Version == "" {
		file = e.Path
	}
	b := make([]byte, 0, 512)
	for _, f := range []string{string(e.Ecosystem), e.Name, e.Version, e.Arch, e.SHA256, e.SHA512, e.SHA1, e.MD5, file} {
		b = append(binary.AppendUvarint(b, uint64(len(f))), f...)
	}
	b = strconv.AppendBool(b, e.Source)
	b = strconv.AppendBool(b, e.EpochUnknown)
	return sha256.Sum256(b)
}

type parser struct {
	file string
	in   *bufio.Reader
	head []byte // the first bytes of in, valid until it is read
	m    *Manifest
	seen map[key]struct{}
	line int  // of the line that nextLine returned
	long bool // that line is worth copying out of
	buf  []byte
}

func (p *parser) parse() error {
	switch p.m.Format {
	case List:
		return p.eachLine(p.listLine)
	case DpkgStatus:
		return p.dpkgStatus()
	case Buildinfo:
		return p.buildinfo()
	case DpkgQuery:
		return p.dpkgQuery()
	case DpkgSelections:
		return p.eachLine(p.dpkgSelectionsLine)
	case AptHistory:
		return p.aptHistory()
	case AptList:
		return p.eachLine(p.aptListLine)
	case Mmdebstrap:
		return p.mmdebstrap()
	case Debootstrap:
		return p.eachLine(p.debootstrapLine)
	case PrintURIs:
		return p.eachRawLine(p.printURIsLine)
	case SHA256Sums:
		return p.eachRawLine(p.sha256sumsLine)
	case RPMQA:
		return p.rpmqa()
	case RPMQI:
		return p.rpmqi()
	case DNFHistory:
		return p.dnfHistory()
	case Syft:
		return p.syft()
	case Tails:
		return p.tails()
	case RPMsLock:
		return p.rpmsLock()
	case SPDX:
		return p.spdx()
	case CycloneDX:
		return p.cyclonedx()
	case ReproEnv:
		return p.reproEnv()
	case RulesDistroless:
		return p.rulesDistroless()
	case Mkosi:
		return p.mkosi()
	}
	return fmt.Errorf("parse build manifest %s: format %q is not known", p.file, clip(string(p.m.Format)))
}

// malformed returns a *SyntaxError at a line.
func (p *parser) malformed(line int, expected, found string) error {
	return &SyntaxError{File: p.file, Line: line, Expected: expected, Found: clip(found)}
}

func (p *parser) note(line int, format string, args ...any) {
	p.m.NoteCount++
	if len(p.m.Notes) < MaxNotes {
		p.m.Notes = append(p.m.Notes, Note{Line: line, Text: fmt.Sprintf(format, args...)})
	}
}

// add appends an entry after the checks that all formats share. Its Line and Raw
// are set.
func (p *parser) add(e Entry) error {
	for _, f := range [...]struct {
		what, value string
		max         int
	}{
		{"a package name", e.Name, maxField}, {"a version", e.Version, maxField}, {"an architecture", e.Arch, maxField},
		{"a source name", e.SourceName, maxField}, {"a source version", e.SourceVersion, maxField},
		{"an origin", e.Origin, maxURL}, {"a path", e.Path, maxURL}, {"a URL", e.URL, maxURL},
	} {
		if len(f.value) > f.max {
			return p.malformed(e.Line, fmt.Sprintf("%s of at most %d bytes", f.what, f.max), f.value)
		}
	}
	k := e.key()
	if _, dup := p.seen[k]; dup {
		return nil
	}
	if len(p.m.Entries) >= MaxEntries {
		return fmt.Errorf("%s:%d: more than %d packages: %w", p.file, e.Line, MaxEntries, ErrTooLarge)
	}
	if p.long {
		// Copy the strings: a substring would keep the whole line in memory.
		for _, s := range []*string{&e.Name, &e.Version, &e.Arch, &e.Path, &e.URL, &e.Origin} {
			*s = strings.Clone(*s)
		}
	}
	p.seen[k] = struct{}{}
	p.m.Entries = append(p.m.Entries, e)
	return nil
}

// clip shortens a string from outside for an error, a note or Entry.Raw, and
// redacts the URLs in it.
func clip(s string) string {
	// Passwords are shorter than the part that is scrubbed.
	s = strings.ToValidUTF8(remote.Scrub(s[:min(len(s), 4*maxURL)]), "\uFFFD")
	if len(s) <= maxRaw {
		return s
	}
	return strings.ToValidUTF8(s[:maxRaw], "") + "…"
}
