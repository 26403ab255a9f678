package rpm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

const metalinkURL = "https://mirrors.example.org/metalink"

func TestFetchRoot(t *testing.T) {
	key := signtest.NewKey(t, "fedora")
	r := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key), Compress: ".zst"})
	r.Add(rpmtest.Package{Name: "app", Version: "1.0"})
	r.SetData("x-novelty", "novelty.bin", []byte("anything"))
	r.Publish(t0)
	u := &upstream{r: r}
	kr := signtest.Keyring(key)
	root, err := fetchRoot(t, u, config.Mirror{}, kr)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{repomdPath, ascPath}, u.asked); d != "" {
		t.Errorf("requests (-want +got):\n%s", d)
	}
	if root.Trust != repo.TrustSignature || !root.Date.Equal(t0) || root.Revision != fmt.Sprint(t0.Unix()) || !root.ByHash || len(root.Files) != 4 ||
		len(root.Signers) != 1 || root.Signers[0].Fingerprint != key.Fingerprint() {
		t.Errorf("%+v", root)
	}
	groups, err := Format{}.Plan(config.Mirror{}, root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range groups {
		names = append(names, g.Index)
	}
	if d := cmp.Diff([]string{"primary", "filelists", "other", "x-novelty"}, names); d != "" || !groups[0].Packages || groups[1].Packages {
		t.Error(d)
	}

	// If nothing has changed, FetchRoot makes one request.
	u.asked = nil
	_, err = Format{}.FetchRoot(t.Context(), u, config.Mirror{}, Suite, root.Docs, repo.VerifyParams{Keyring: kr, Now: t1})
	if !errors.Is(err, repo.ErrNotModified) || len(u.asked) != 1 {
		t.Errorf("%v after %v", err, u.asked)
	}
	// ParseRoot verifies the same documents without a network.
	again, err := Format{}.ParseRoot(config.Mirror{}, Suite, root.Docs, repo.VerifyParams{Keyring: kr})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(root, again); d != "" {
		t.Error(d)
	}
	// Upstream serves an older state.
	old := rpmtest.New(r.Options)
	old.Publish(t0.Add(-time.Hour))
	_, err = Format{}.FetchRoot(t.Context(), &upstream{r: old}, config.Mirror{}, Suite, root.Docs, repo.VerifyParams{Keyring: kr, Now: t1})
	if want := fmt.Sprintf("repodata/repomd.xml: revision %d, expected %d or higher: rollback", t0.Unix()-3600, t0.Unix()); err == nil || err.Error() != want || !errors.Is(err, repo.ErrRollback) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestTrust tries each combination of signature, metalink and configuration.
func TestTrust(t *testing.T) {
	key, stranger := signtest.NewKey(t, "fedora"), signtest.NewKey(t, "stranger")
	unsigned := rpmtest.New(rpmtest.Options{})
	unsigned.Publish(t0)
	current := unsigned.Metalink("https://a.example.org/f")
	unsigned.Publish(t1)
	later := unsigned.Metalink("https://a.example.org/f")
	signed := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key)})
	signed.Publish(t1)
	other := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, stranger)})
	other.Add(rpmtest.Package{Name: "other", Version: "1"})
	other.Publish(t1)
	otherLink := other.Metalink("https://a.example.org/f")
	forged := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key)})
	forged.Publish(t1)
	forged.SetFile(repomdPath, bytes.Replace(forged.File(repomdPath), []byte("<repomd"), []byte("<!-- x --><repomd"), 1))
	sum := cas.Sum(unsigned.File(repomdPath))
	for name, c := range map[string]struct {
		r     *rpmtest.Repo
		m     config.Mirror
		ml    []byte
		trust repo.Trust
		want  string
		is    error
	}{
		"signed":           {r: signed, trust: repo.TrustSignature},
		"signed, metalink": {r: signed, m: config.Mirror{Metalink: remote.NewURL(metalinkURL)}, ml: signed.Metalink(), trust: repo.TrustSignature},
		"metalink":         {r: unsigned, m: config.Mirror{Metalink: remote.NewURL(metalinkURL)}, ml: later, trust: repo.TrustMetalink},
		"none":             {r: unsigned, m: config.Mirror{RepoGPGCheck: boolp(false)}, trust: repo.TrustNone},
		"unsigned": {r: unsigned, is: repo.ErrUntrusted,
			want: "repodata/repomd.xml: it has no signature; expected repodata/repomd.xml.asc, a metalink over https, or repo_gpgcheck = false: untrusted"},
		"plain http metalink": {r: unsigned, m: config.Mirror{Metalink: remote.NewURL("http://mirrors.example.org/metalink")}, ml: later, is: repo.ErrUntrusted,
			want: "repodata/repomd.xml: it has no signature, and a metalink vouches only over https; expected repodata/repomd.xml.asc, a metalink over https, or repo_gpgcheck = false: untrusted"},
		"not in the metalink": {r: unsigned, m: config.Mirror{Metalink: remote.NewURL(metalinkURL)}, ml: current, is: ErrLagging},
		"stranger":            {r: other, is: repo.ErrUntrusted},
		"stranger, metalink":  {r: other, m: config.Mirror{Metalink: remote.NewURL(metalinkURL)}, ml: otherLink, trust: repo.TrustMetalink},
		"stranger, none":      {r: other, m: config.Mirror{RepoGPGCheck: boolp(false)}, trust: repo.TrustNone},
		"forged":              {r: forged, is: repo.ErrUntrusted},
		"forged, none":        {r: forged, m: config.Mirror{RepoGPGCheck: boolp(false)}, is: repo.ErrUntrusted},
		"forged, metalink":    {r: forged, m: config.Mirror{Metalink: remote.NewURL(metalinkURL)}, ml: forged.Metalink(), is: repo.ErrUntrusted},
		"metalink elsewhere": {r: unsigned, m: config.Mirror{Metalink: remote.NewURL(metalinkURL)}, ml: bytes.Replace(later, []byte("repomd.xml"), []byte("evil.iso"), 1), is: repo.ErrHostile,
			want: `hostile path: metalink: not the address of a repository: it describes the file "evil.iso", expected "repomd.xml"`},
		"metalink to elsewhere": {r: unsigned, m: config.Mirror{Metalink: remote.NewURL(metalinkURL)}, ml: bytes.Replace(later, []byte("/f/repodata/repomd.xml"), []byte("/f/x"), 1), is: repo.ErrHostile,
			want: `hostile path: metalink: not the address of a repository: address "https://a.example.org/f/x", expected one that ends in "/repodata/repomd.xml"`},
		"metalink of another": {r: unsigned, m: config.Mirror{Metalink: remote.NewURL(metalinkURL)}, ml: otherLink, is: repo.ErrUntrusted,
			want: "repodata/repomd.xml has sha256:" + sum.String() + ", the metalink names sha512:" + hash512(otherLink) + ": not what the metalink names: untrusted"},
		"weak metalink": {r: unsigned, m: config.Mirror{Metalink: remote.NewURL(metalinkURL)}, ml: onlySHA1(later), is: repo.ErrWeak,
			want: `weak digest: metalink: weak digest: repomd.xml is named by "sha1", expected sha256 or sha512`},
		"metalink gone": {r: unsigned, m: config.Mirror{Metalink: remote.NewURL(metalinkURL)}, want: "fetch metalink: not found upstream"},
	} {
		t.Run(name, func(t *testing.T) {
			root, err := fetchRoot(t, &upstream{r: c.r, metalink: c.ml}, c.m, signtest.Keyring(key))
			if c.want != "" && (err == nil || err.Error() != c.want) {
				t.Fatalf("got  %v\nwant %s", err, c.want)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("got %v, want %v", err, c.is)
			}
			if c.trust == "" {
				return
			}
			if err != nil || root.Trust != c.trust {
				t.Fatalf("%v, %v, want %s", root, err, c.trust)
			}
			if root.Trust == repo.TrustMetalink {
				again, err := Format{}.ParseRoot(c.m, Suite, root.Docs, repo.VerifyParams{Keyring: signtest.Keyring(key), Metalink: root.Metalink})
				if err != nil || again.Trust != repo.TrustMetalink {
					t.Errorf("again: %v", err)
				}
			}
		})
	}
}

func hash512(ml []byte) string {
	_, after, _ := strings.Cut(string(ml), `<hash type="sha512">`)
	return after[:128]
}

func onlySHA1(ml []byte) []byte {
	var out []string
	for line := range strings.Lines(string(ml)) {
		if !strings.Contains(line, `"sha256"`) && !strings.Contains(line, `"sha512"`) {
			out = append(out, line)
		}
	}
	return []byte(strings.Join(out, ""))
}

// If only the metalink vouches for a repository, the next sync requests the signature
// again, and accepts it if it has become good.
func TestSignatureReturns(t *testing.T) {
	key := signtest.NewKey(t, "fedora")
	r := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key)})
	r.Publish(t0)
	good := bytes.Clone(r.File(ascPath))
	m := config.Mirror{Metalink: remote.NewURL(metalinkURL)}
	stranger := signtest.Detach(t, signtest.NewKey(t, "stranger"), r.File(repomdPath), t0)
	for name, first := range map[string][]byte{"absent": nil, "by another key": stranger} {
		t.Run(name, func(t *testing.T) {
			u := &upstream{r: r, metalink: r.Metalink("https://a.example.org/f")}
			if r.SetFile(ascPath, first); first == nil {
				u.missing = ascPath
			}
			root, err := fetchRoot(t, u, m, signtest.Keyring(key))
			if err != nil || root.Trust != repo.TrustMetalink {
				t.Fatalf("%+v, %v", root, err)
			}
			next := func() (*repo.Root, error) {
				u.asked = nil
				return Format{}.FetchRoot(t.Context(), u, m, Suite, root.Docs, repo.VerifyParams{Keyring: signtest.Keyring(key), Now: t1})
			}
			if _, err := next(); !errors.Is(err, repo.ErrNotModified) || !slices.Equal(u.asked, []string{metalinkURL, ascPath}) {
				t.Errorf("nothing changed: %v after %v", err, u.asked)
			}
			u.missing = ""
			r.SetFile(ascPath, good)
			if root, err = next(); err != nil || root.Trust != repo.TrustSignature {
				t.Fatalf("the signature is good: %+v, %v", root, err)
			}
			if _, err := next(); !errors.Is(err, repo.ErrNotModified) || !slices.Equal(u.asked, []string{metalinkURL}) {
				t.Errorf("nothing changed: %v after %v", err, u.asked)
			}
		})
	}
}

// FetchRoot requests documents unconditionally if those stored no longer verify.
func TestHeldThatIsRefused(t *testing.T) {
	key := signtest.NewKey(t, "fedora")
	r := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key)})
	r.Publish(t0)
	good := bytes.Clone(r.File(ascPath))
	r.SetFile(ascPath, append(signtest.Detach(t, key, []byte("other"), t0), good...))
	u := &upstream{r: r}
	held := []repo.Doc{{Path: repomdPath, Data: r.File(repomdPath)}, {Path: ascPath, Data: r.File(ascPath)}}
	next := func() (*repo.Root, error) {
		return Format{}.FetchRoot(t.Context(), u, config.Mirror{}, Suite, held, repo.VerifyParams{Keyring: signtest.Keyring(key), Now: t1})
	}
	if _, err := next(); !errors.Is(err, sign.ErrBadSignature) {
		t.Errorf("as held: %v", err)
	}
	r.SetFile(ascPath, good)
	if root, err := next(); err != nil || root.Trust != repo.TrustSignature {
		t.Errorf("repaired: %+v, %v", root, err)
	}
}

// If the metalink lists the stored repomd.xml, a sync makes only that request. If it lists
// a newer one, the sync requests repomd.xml.
func TestMetalinkSync(t *testing.T) {
	r := rpmtest.New(rpmtest.Options{})
	r.Publish(t0)
	m := config.Mirror{Metalink: remote.NewURL(metalinkURL), Mirrorlist: remote.NewURL("https://mirrors.example.org/list"), URL: remote.NewURL("https://own.example.org/f/")}
	u := &upstream{r: r, metalink: r.Metalink("https://a.example.org/f", "https://b.example.org/f")}
	urls, err := Format{}.BaseURLs(t.Context(), u, m)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("[https://own.example.org/f https://a.example.org/f https://b.example.org/f]", fmt.Sprint(urls)); d != "" {
		t.Error(d)
	}
	root, err := fetchRoot(t, u, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	next := func() (*repo.Root, error) {
		u.asked = nil
		return Format{}.FetchRoot(t.Context(), u, m, Suite, root.Docs, repo.VerifyParams{Now: t1})
	}
	if _, err := next(); !errors.Is(err, repo.ErrNotModified) || !slices.Equal(u.asked, []string{metalinkURL}) {
		t.Errorf("%v after %v", err, u.asked)
	}
	// The mirror lags behind: it serves a repomd.xml that the metalink lists as an
	// alternate.
	ahead := rpmtest.New(rpmtest.Options{})
	ahead.Publish(t0)
	ahead.Publish(t1)
	u.metalink = ahead.Metalink("https://a.example.org/f")
	if got, err := next(); err != nil || !got.Date.Equal(t0) {
		t.Errorf("a lagging mirror: %v", err)
	}
	u.r = ahead
	if got, err := next(); err != nil || !got.Date.Equal(t1) {
		t.Errorf("%v", err)
	}
}

func TestRead(t *testing.T) {
	key := signtest.NewKey(t, "fedora")
	for _, opts := range []rpmtest.Options{{}, {Compress: ".zst"}, {Compress: ".xz"}, {Compress: "none", SimpleNames: true}, {Checksum: "sha512", PackageChecksum: "sha256"},
		{XMLBase: "https://mirror.example.org/fedora/"}, {XMLBase: "https://elsewhere.example.org/"}, {XMLBase: "."}, {XMLBase: "sub/dir/"}} {
		t.Run(fmt.Sprintf("%+v", opts), func(t *testing.T) {
			opts.Signer = signtest.Signer(t, key)
			r := rpmtest.New(opts)
			built := r.Add(
				rpmtest.Package{Name: "app", Version: "1.0", Epoch: 1, Arch: "x86_64", SourceRPM: "app-1.0-1.src.rpm"},
				rpmtest.Package{Name: "app-libs", Version: "1.0", Release: "2", Arch: "x86_64", SourceRPM: "app-1.0-1.src.rpm"},
				rpmtest.Package{Name: "app", Version: "1.0", Epoch: 1, Arch: "src", Location: "SRPMS/app-1.0-1.src.rpm"},
				// The same name and version with different bytes, at another path.
				rpmtest.Package{Name: "app", Version: "1.0", Epoch: 1, Arch: "x86_64", Summary: "Other", Location: "other/app.rpm"},
			)
			r.Publish(t0)
			u := &upstream{r: r}
			root, err := fetchRoot(t, u, config.Mirror{}, signtest.Keyring(key))
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := readAll(t, u, config.Mirror{}, root)
			if err != nil {
				t.Fatal(err)
			}
			want := []repo.Record{
				{Kind: repo.KindBinary, Name: "app", Version: "1:1.0-1", Arch: "x86_64", Sources: []repo.Ref{{Name: "app", Version: "1.0-1"}}},
				{Kind: repo.KindBinary, Name: "app-libs", Version: "1.0-2", Arch: "x86_64", Sources: []repo.Ref{{Name: "app", Version: "1.0-1"}}},
				{Kind: repo.KindSource, Name: "app", Version: "1:1.0-1", Arch: "src"},
				{Kind: repo.KindBinary, Name: "app", Version: "1:1.0-1", Arch: "x86_64", Sources: []repo.Ref{{Name: "app", Version: "1.0-1"}}},
			}
			for i := range want {
				want[i].Files = []repo.File{{Path: map[bool]string{true: "sub/dir/"}[opts.XMLBase == "sub/dir/"] + built[i].Href(), Size: int64(len(built[i].Bytes)), SHA256: cas.Sum(built[i].Bytes)}}
				if strings.HasPrefix(opts.XMLBase, "https:") {
					want[i].AlternateBases = opts.XMLBase
				}
			}
			bytesOf := make([][]byte, len(got))
			for i := range got {
				bytesOf[i], got[i].Bytes = got[i].Bytes, nil
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			for i := range got {
				got[i].Bytes = bytesOf[i]
				w, err := Format{}.CheckPackage(config.Mirror{}, &got[i], signtest.Keyring(key))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(w, bytes.NewReader(built[i].Bytes)); err != nil {
					t.Fatal(err)
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Bad upstream input is refused. Long because of its table.
func TestBadInput(t *testing.T) {
	key := signtest.NewKey(t, "fedora")
	signer := signtest.Signer(t, key)
	replace := func(typ, old, new string) func(*rpmtest.Repo) {
		return func(r *rpmtest.Repo) {
			r.Edit = func(got string, doc []byte) []byte {
				if got == typ {
					if !bytes.Contains(doc, []byte(old)) {
						panic(old)
					}
					return bytes.Replace(doc, []byte(old), []byte(new), 1)
				}
				return doc
			}
		}
	}
	md := func(old, new string) func(*rpmtest.Repo) {
		return func(r *rpmtest.Repo) {
			r.EditRepoMD = func(doc []byte) []byte {
				if !bytes.Contains(doc, []byte(old)) {
					panic(old)
				}
				return bytes.Replace(doc, []byte(old), []byte(new), 1)
			}
		}
	}
	dropData := func(typ string) func(*rpmtest.Repo) {
		return func(r *rpmtest.Repo) {
			r.EditRepoMD = func(doc []byte) []byte {
				a := bytes.Index(doc, []byte(`  <data type="`+typ+`">`))
				b := a + bytes.Index(doc[a:], []byte("</data>\n")) + len("</data>\n")
				return slices.Concat(doc[:a], doc[b:])
			}
		}
	}
	for name, c := range map[string]struct {
		break_ func(*rpmtest.Repo)
		is     error
		want   string // part of the message
	}{
		"no primary":      {dropData("primary"), repo.ErrMalformed, `repomd.xml: no data of type "primary": malformed`},
		"XML bomb":        {md(`<repomd`, `<!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><repomd`), repo.ErrMalformed, `a declaration, "<!DOCTYPE"; document types and entities are not accepted`},
		"external entity": {replace("primary", "<metadata", `<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]><metadata`), repo.ErrMalformed, "document types and entities are not accepted"},
		"entity":          {replace("primary", "The package app", "&x;"), repo.ErrMalformed, `entity "&x;" is not defined`},
		"huge attribute":  {replace("primary", `<location href="`, `<location href="`+strings.Repeat("a", 300<<10)), repo.ErrMalformed, "exceeds the limit of 262144 bytes"},
		"href parent":     {replace("primary", `href="Packages/a/app`, `href="../../etc/app`), repo.ErrHostile, `primary: package app-1.0-1.noarch: hostile path: hostile location: href "../../etc/app-1.0-1.noarch.rpm": has the segment ".."`},
		"href absolute":   {replace("primary", `href="Packages/a/app`, `href="/etc/app`), repo.ErrHostile, `is absolute`},
		"href URL":        {replace("primary", `href="Packages/a/app`, `href="http://evil.example.org/app`), repo.ErrHostile, `is an absolute URL`},
		"href space":      {replace("primary", `href="Packages/a/app`, `href="Packages/a app`), repo.ErrHostile, `has white space or control characters`},
		"href CR":         {replace("primary", `href="Packages/a/app`, `href="Packages/a&#13;app`), repo.ErrHostile, `has white space or control characters`},
		"base parent":     {replace("primary", `<location href`, `<location xml:base="../other" href`), repo.ErrHostile, `has the segment ".."`},
		"metadata href":   {md(`href="repodata/`, `href="../repodata/`), repo.ErrHostile, `data primary: hostile location`},
		"metadata over repomd": {func(r *rpmtest.Repo) {
			r.EditRepoMD = func(doc []byte) []byte {
				a := bytes.Index(doc, []byte(`href="repodata/`))
				b := a + 6 + bytes.IndexByte(doc[a+6:], '"')
				return slices.Concat(doc[:a], []byte(`href="repodata/repomd.xml`), doc[b:])
			}
		}, repo.ErrHostile, "data primary is at repodata/repomd.xml"},
		"weak digest":         {func(r *rpmtest.Repo) { r.Checksum = "sha1" }, repo.ErrWeak, "repomd.xml: data primary: weak digest: only sha1 is given, expected sha256 or better"},
		"weak package digest": {replace("primary", `<checksum type="sha256" pkgid="YES">`, `<checksum type="sha1" pkgid="YES">0000000000000000000000000000000000000000</checksum><checksum type="sha256" pkgid="NO">`), repo.ErrWeak, "primary: package app-1.0-1.noarch: weak digest: checksum: weak digest: only sha1 is given"},
		"open checksum":       {openChecksum, repo.ErrMismatch, "primary.xml.gz unpacks to sha256:"},
		"open size":           {md(`<open-size>`, `<open-size>1`), repo.ErrMismatch, "repomd.xml says 1"},
		"too large": {func(r *rpmtest.Repo) {
			r.EditRepoMD = func(doc []byte) []byte {
				a := bytes.Index(doc, []byte("<open-size>"))
				b := a + bytes.Index(doc[a:], []byte("</open-size>"))
				return slices.Concat(doc[:a], []byte("<open-size>7"), doc[b:])
			}
		}, repo.ErrMismatch, "primary.xml.gz unpacks to more than 7 bytes, the size in repomd.xml"},
		"pkgid mismatch":      {replace("filelists", `<package pkgid="`, `<package pkgid="0`), repo.ErrMalformed, "primary and filelists disagree: package app is missing in filelists"},
		"missing in other":    {func(r *rpmtest.Repo) { r.Edit = dropFirst("other") }, repo.ErrMalformed, "primary and other disagree: package app is missing in other"},
		"missing in primary":  {func(r *rpmtest.Repo) { r.Edit = dropFirst("primary") }, repo.ErrMalformed, "primary and filelists disagree: package app is missing in primary"},
		"NEVRA mismatch":      {replace("filelists", `name="app"`, `name="other"`), repo.ErrMalformed, "primary and filelists disagree: package app has another name, version or architecture in filelists"},
		"HTML for primary":    {func(r *rpmtest.Repo) { r.Compress = ""; replace("primary", "<metadata", "<html")(r) }, repo.ErrMalformed, "root element <html>, expected <metadata>"},
		"truncated":           {func(r *rpmtest.Repo) { r.Edit = truncate("primary") }, repo.ErrMalformed, "the document ends inside"},
		"no name":             {replace("primary", "<name>app</name>", ""), repo.ErrMalformed, "primary: package number 1: malformed XML"},
		"no version":          {replace("primary", `ver="1.0" `, ""), repo.ErrMalformed, "primary: package app (number 1)"},
		"base of a file":      {replace("primary", `<location href`, `<location xml:base="file:///etc" href`), repo.ErrHostile, `xml:base "file:///etc": expected an http or https URL`},
		"base with password":  {replace("primary", `<location href`, `<location xml:base="http://u:p@evil.example.org/" href`), repo.ErrHostile, `has a user, query or fragment`},
		"base without scheme": {replace("primary", `<location href`, `<location xml:base="//evil.example.org/" href`), repo.ErrHostile, `expected an http or https URL`},
		"no digest":           {replace("primary", `pkgid="YES"`, `pkgid="NO"`), repo.ErrMalformed, "no checksum"},
		"one digest, two":     {replace("filelists", "</filelists>", `<package pkgid="FIRST" name="x" arch="noarch"><version epoch="0" ver="1" rel="1"/></package></filelists>`), repo.ErrMalformed, ""},
		"missing signature":   {func(r *rpmtest.Repo) { r.Signer = nil }, repo.ErrUntrusted, "it has no signature"},
		"lists itself signed": {md(`<data type="other">`, `<data type="primary">`), repo.ErrMalformed, `data type "primary" is listed twice, with different files`},
	} {
		t.Run(name, func(t *testing.T) {
			r := rpmtest.New(rpmtest.Options{Signer: signer})
			r.Add(rpmtest.Package{Name: "app", Version: "1.0"}, rpmtest.Package{Name: "lib", Version: "2.0"})
			c.break_(r)
			r.Publish(t0)
			u := &upstream{r: r}
			root, err := fetchRoot(t, u, config.Mirror{}, signtest.Keyring(key))
			if err == nil {
				_, _, err = readAll(t, u, config.Mirror{}, root)
			}
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got  %v\nwant %v: %s", err, c.is, c.want)
			}
		})
	}
}

func TestFuture(t *testing.T) {
	key := signtest.NewKey(t, "fedora")
	for _, signer := range []*sign.Signer{nil, signtest.Signer(t, key)} {
		r := rpmtest.New(rpmtest.Options{Signer: signer})
		r.Publish(t1.Add(100 * time.Hour))
		_, err := fetchRoot(t, &upstream{r: r}, config.Mirror{RepoGPGCheck: boolp(false)}, signtest.Keyring(key))
		const want = "repodata/repomd.xml of 2026-03-06T16:00:00Z, judged at 2026-03-02T12:00:00Z: dated in the future"
		if signer == nil && (err == nil || err.Error() != want || !errors.Is(err, repo.ErrFuture)) || signer != nil && !errors.Is(err, repo.ErrUntrusted) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// The checksum of the zchunk header in repomd.xml is compared with the file.
func TestZchunkHeader(t *testing.T) {
	zck, err := os.ReadFile("rpmmd/testdata/plain.zck")
	if err != nil {
		t.Fatal(err)
	}
	h, err := rpmmd.ReadZchunkHeader(bufio.NewReader(bytes.NewReader(zck)))
	if err != nil {
		t.Fatal(err)
	}
	key := signtest.NewKey(t, "fedora")
	for sum, is := range map[string]error{h.Checksum.Hex: nil, strings.Repeat("0", 64): repo.ErrMismatch} {
		r := rpmtest.New(rpmtest.Options{Signer: signtest.Signer(t, key)})
		r.Add(rpmtest.Package{Name: "app", Version: "1.0"})
		r.SetData("primary_zck", "primary.xml.zck", zck)
		r.EditRepoMD = func(doc []byte) []byte {
			i := bytes.Index(doc, []byte(`<data type="primary_zck">`)) + len(`<data type="primary_zck">`)
			return slices.Concat(doc[:i], []byte(fmt.Sprintf("<header-checksum type=\"sha256\">%s</header-checksum><header-size>%d</header-size>", sum, h.Size)), doc[i:])
		}
		r.Publish(t0)
		u := &upstream{r: r}
		root, err := fetchRoot(t, u, config.Mirror{}, signtest.Keyring(key))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = readAll(t, u, config.Mirror{}, root)
		if !errors.Is(err, is) || is == nil && err != nil {
			t.Errorf("got %v, want %v", err, is)
		}
	}
}

func openChecksum(r *rpmtest.Repo) {
	r.EditRepoMD = func(doc []byte) []byte {
		a := bytes.Index(doc, []byte(`<open-checksum type="sha256">`)) + len(`<open-checksum type="sha256">`)
		return slices.Concat(doc[:a], []byte(strings.Repeat("0", 64)), doc[a+64:])
	}
}

// dropFirst removes the first package from one list.
func dropFirst(typ string) func(string, []byte) []byte {
	return func(got string, doc []byte) []byte {
		if got != typ {
			return doc
		}
		a := bytes.Index(doc, []byte("<package "))
		b := bytes.Index(doc, []byte("</package>\n")) + len("</package>\n")
		return slices.Concat(doc[:a], doc[b:])
	}
}

func truncate(typ string) func(string, []byte) []byte {
	return func(got string, doc []byte) []byte {
		if got != typ {
			return doc
		}
		return doc[:len(doc)-30]
	}
}
