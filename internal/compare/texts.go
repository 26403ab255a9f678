package compare

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"example.org/snapd/internal/api"
)

// A token is a kind of text in lines that differs from build to build.
type token struct {
	code string
	re   string
	// same reports whether two tokens have the same meaning; nil means always.
	same func(p *pairing, a, b string) bool
}

const (
	months   = `(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)`
	weekdays = `(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)`
	clock    = `[0-2]?\d:[0-5]\d(?::[0-6]\d(?:[.,]\d{1,9})?)?`
	zone     = `(?: ?(?:Z|[+-]\d{2}:?\d{2}|UTC|GMT|CES?T|E[SD]T|C[SD]T|M[SD]T|P[SD]T|BST|IST|JST))?`
)

// tokens are tried in this order at each place of a line.
var tokens = []token{
	{code: codeRandomID, re: `[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`},
	{code: codeRandomID, re: `\$(?:1|5|6|y|2[aby])\$[./A-Za-z0-9=$]{8,}`, same: sameSaltKind},
	{code: codeDate, re: `(?:` + weekdays + `, )?\d{1,2} ` + months + ` \d{4}(?:,? ` + clock + zone + `)?`},
	{code: codeDate, re: months + ` (?:19|20)\d{2}\b`},
	{code: codeDate, re: `(?:` + weekdays + `,? +)?` + months + ` +\d{1,2}(?:,? +\d{4})?(?:,? +` + clock + `)?(?: (?:AM|PM))?` + zone + `(?: \d{4})?`},
	{code: codeDate, re: `(?:19|20)\d{2}-[01]\d-[0-3]\d(?:[T ]` + clock + zone + `)?`},
	{code: codeDate, re: `(?:19|20)\d{2}/[01]\d/[0-3]\d(?: ` + clock + `)?`},
	{code: codeDate, re: `(?:19|20)\d{2}[01]\d[0-3]\dT[0-2]\d[0-5]\d[0-6]\dZ?`},
	{code: codeKernel, re: `\d+\.\d+\.\d+-(?:\d+[0-9a-z.+~]*-)?(?:(?:cloud-|rt-)?(?:amd64|arm64)|686(?:-pae)?|armmp(?:-lpae)?|generic|lowlatency|powerpc64le|s390x|riscv64)\b`},
	{code: codeKernel, re: `\d+\.\d+\.\d+-[0-9A-Za-z.~]+\.(?:fc|el)\d+[0-9_]*\.[a-z0-9_]+`},
	{code: codeBuildPath, re: `/(?:build|builds|tmp|var/tmp|home|root|workspace|usr/src|var/lib/jenkins|var/cache/pbuilder|opt/build)(?:/[A-Za-z0-9._+~@%=,-]+)+`, same: samePath},
	{code: codeDate, re: `[0-2]\d:[0-5]\d:[0-6]\d(?:[.,]\d{1,9})?`},
	{code: codeDate, re: `[12]\d{9}`, same: sameEpoch},
}

// tokenRE has one group for each token.
var tokenRE = sync.OnceValue(func() *regexp.Regexp {
	var parts []string
	for _, t := range tokens {
		parts = append(parts, "("+t.re+")")
	}
	return regexp.MustCompile(strings.Join(parts, "|"))
})

// sameSaltKind reports whether two hashed passwords are of one method and length.
func sameSaltKind(_ *pairing, a, b string) bool {
	return len(a) == len(b) && strings.SplitN(a, "$", 3)[1] == strings.SplitN(b, "$", 3)[1]
}

// samePath reports whether two paths name the same file in different directories of a
// build: what follows the part that differs is equal, and not empty unless that part
// is the name of a temporary directory.
func samePath(_ *pairing, a, b string) bool {
	x, y := strings.Split(a[1:], "/"), strings.Split(b[1:], "/")
	k := 0
	for k < min(len(x), len(y))-1 && x[len(x)-1-k] == y[len(y)-1-k] {
		k++
	}
	if k > 0 {
		return true
	}
	temporary := func(s string) bool { return strings.HasPrefix(s, "/tmp/") || strings.HasPrefix(s, "/var/tmp/") }
	return len(x) == len(y) && temporary(a) && temporary(b) && len(path.Base(a)) == len(path.Base(b))
}

// sameEpoch reports whether two numbers are seconds since 1970 close to the times of
// their files.
func sameEpoch(p *pairing, a, b string) bool {
	near := func(s string, n *node) bool {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n == nil {
			return false
		}
		made := n.mtime
		if n.near != 0 {
			made = n.near
		}
		return v-made <= 2*86400 && made-v <= 2*86400
	}
	return near(a, p.nx) && near(b, p.ny)
}

// texts explains two texts that differ. ok is false unless every difference is
// explained.
func (c *comparer) texts(p *pairing, x, y []byte) (list []api.CompareCause, ok bool) {
	a, b := strings.Split(string(x), "\n"), strings.Split(string(y), "\n")
	if list, ok := c.wholeTexts(p, string(x), string(y)); ok {
		return list, true
	}
	if len(a) == len(b) {
		ok = true
		for i := range a {
			if a[i] == b[i] {
				continue
			}
			more, same := c.line(p, a[i], b[i])
			if !same {
				ok = false
				break
			}
			list = addCause(list, more...)
		}
		if ok {
			return list, len(list) > 0
		}
		s, t := slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
		if slices.Equal(s, t) {
			return []api.CompareCause{cause(codeLineOrder, "", "", fmt.Sprintf("%d lines", len(a)))}, true
		}
		return c.sortedLines(p, s, t)
	}
	return nil, false
}

// sortedLines explains lines in another order that also differ otherwise.
func (c *comparer) sortedLines(p *pairing, s, t []string) (list []api.CompareCause, ok bool) {
	for i := range s {
		if s[i] == t[i] {
			continue
		}
		more, same := c.line(p, s[i], t[i])
		if !same {
			return nil, false
		}
		list = addCause(list, more...)
	}
	return addCause(list, cause(codeLineOrder, "", "", fmt.Sprintf("%d lines", len(s)))), true
}

// wholeTexts explains files that consist of one value.
func (c *comparer) wholeTexts(p *pairing, x, y string) ([]api.CompareCause, bool) {
	a, b := strings.TrimSuffix(x, "\n"), strings.TrimSuffix(y, "\n")
	switch {
	case strings.HasSuffix(x, "\n") != strings.HasSuffix(y, "\n"):
		return nil, false
	case p.name == "/etc/hostname" || p.name == "/etc/mailname":
		if isHost(a) && isHost(b) {
			return []api.CompareCause{cause(codeHostName, clip(a), clip(b), "")}, true
		}
	case path.Base(p.name) == "machine-id" || strings.HasSuffix(p.name, "/random_seed"):
		if isHex(a) && isHex(b) && len(a) == 32 && len(b) == 32 {
			return []api.CompareCause{cause(codeRandomID, a, b, "")}, true
		}
	}
	return nil, false
}

func isHex(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdefABCDEF") == "" }

func isHost(s string) bool {
	return s != "" && len(s) < 256 && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.')
	}) < 0
}

// maxLine bounds a line that is searched for tokens, in bytes.
const maxLine = 64 << 10

// line explains two lines, or other runs of text, that differ.
func (c *comparer) line(p *pairing, x, y string) (list []api.CompareCause, ok bool) {
	if len(x) > maxLine || len(y) > maxLine {
		return nil, false
	}
	if list, ok := c.hostLine(x, y); ok {
		return list, true
	}
	a, b := tokenRE().FindAllStringSubmatchIndex(x, -1), tokenRE().FindAllStringSubmatchIndex(y, -1)
	if len(a) != len(b) || len(a) == 0 {
		return nil, false
	}
	endA, endB := 0, 0
	for i := range a {
		if x[endA:a[i][0]] != y[endB:b[i][0]] {
			return nil, false
		}
		endA, endB = a[i][1], b[i][1]
		s, t := x[a[i][0]:endA], y[b[i][0]:endB]
		if s == t {
			continue
		}
		g, h := group(a[i]), group(b[i])
		if !apart(x, a[i]) || !apart(y, b[i]) {
			return nil, false
		}
		if tokens[g].code != tokens[h].code || g != h && tokens[g].code != codeDate {
			return nil, false
		}
		if same := tokens[g].same; same != nil && !same(p, s, t) {
			return nil, false
		}
		list = addCause(list, cause(tokens[g].code, clip(s), clip(t), ""))
	}
	if x[endA:] != y[endB:] {
		return nil, false
	}
	return list, len(list) > 0
}

// apart reports whether a token is not part of a longer number or address, such as a
// hardware address that looks like a time.
func apart(s string, m []int) bool {
	near := func(i int) bool {
		if i < 0 || i >= len(s) {
			return false
		}
		return s[i] >= '0' && s[i] <= '9' || s[i] == ':' && strings.Contains(s[m[0]:m[1]], ":") && !strings.Contains(s[m[0]:m[1]], " ")
	}
	return !near(m[0]-1) && !near(m[1])
}

// group is the number of the token that matched.
func group(m []int) int {
	for i := range tokens {
		if m[2+2*i] >= 0 {
			return i
		}
	}
	return 0
}

// hostLine explains lines that differ only in the host names of the two images.
func (c *comparer) hostLine(x, y string) ([]api.CompareCause, bool) {
	a, b := c.hosts[0], c.hosts[1]
	if len(a) < 3 || len(b) < 3 || a == b || !strings.Contains(x, a) {
		return nil, false
	}
	re := regexp.MustCompile(`(^|[^A-Za-z0-9])` + regexp.QuoteMeta(a) + `($|[^A-Za-z0-9])`)
	if re.ReplaceAllString(x, "${1}"+strings.ReplaceAll(b, "$", "$$")+"${2}") != y {
		return nil, false
	}
	return []api.CompareCause{cause(codeHostName, clip(a), clip(b), "")}, true
}

// maxRuns bounds the places where two binary files of one size differ.
const maxRuns = 10_000

// binaries explains two binary files of one size that differ only in printable text.
func (c *comparer) binaries(p *pairing, x, y []byte) (list []api.CompareCause, ok bool) {
	if len(x) != len(y) {
		return nil, false
	}
	printable := func(i int) bool {
		return x[i] >= 0x20 && x[i] < 0x7f && y[i] >= 0x20 && y[i] < 0x7f
	}
	runs := 0
	for i := 0; i < len(x); {
		if k := differs(x[i:], y[i:]); k < 0 {
			return list, len(list) > 0
		} else {
			i += k
		}
		if runs++; runs > maxRuns || !printable(i) {
			return nil, false
		}
		from := i
		for from > 0 && printable(from-1) && i-from < maxLine {
			from--
		}
		for i < len(x) && printable(i) {
			i++
		}
		more, same := c.line(p, string(x[from:i]), string(y[from:i]))
		if !same {
			return nil, false
		}
		list = addCause(list, more...)
	}
	return list, len(list) > 0
}

// differs returns the first index at which two slices of one length differ, or -1.
func differs(x, y []byte) int {
	const step = 4096
	for at := 0; at < len(x); at += step {
		end := min(at+step, len(x))
		if bytes.Equal(x[at:end], y[at:end]) {
			continue
		}
		for i := at; i < end; i++ {
			if x[i] != y[i] {
				return i
			}
		}
	}
	return -1
}

// caches are files that programs regenerate at any time. Their differences are not
// analysed.
var caches = []string{
	"/etc/ld.so.cache", "/var/cache/ldconfig/aux-cache", "/var/cache/fontconfig/*", "/usr/share/mime/mime.cache", "/var/cache/man/**",
	"/usr/share/icons/*/icon-theme.cache", "/usr/share/applications/mimeinfo.cache", "/usr/lib/*/gdk-pixbuf-2.0/*/loaders.cache",
	"/usr/lib/*/gio/modules/giomodule.cache", "/usr/share/glib-2.0/schemas/gschemas.compiled", "/var/cache/debconf/*", "/var/lib/apt/lists/**",
	"/var/cache/apt/*.bin", "/var/lib/systemd/catalog/database", "/etc/udev/hwdb.bin", "/usr/lib/udev/hwdb.bin", "/lib/udev/hwdb.bin",
	"/var/lib/command-not-found/*", "/var/cache/dnf/**", "/usr/lib/locale/locale-archive", "/var/cache/app-info/**",
}

// randoms are files of random values.
var randoms = []string{"/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_*_key.pub"}

// namedCause returns the cause that the name of a file suggests for contents that are
// not explained otherwise.
func namedCause(p *pairing) *api.CompareCause {
	for _, g := range caches {
		if matchPath(g, p.name) {
			k := cause(codeCache, "", "", "a cache, judged by its name")
			return &k
		}
	}
	for _, g := range randoms {
		if matchPath(g, p.name) {
			k := cause(codeRandomID, "", "", "random values, going by the name")
			return &k
		}
	}
	return nil
}
