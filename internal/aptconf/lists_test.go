package aptconf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A list of mirrors, read as apt's mirror method reads it, becomes one mirror whose URLs
// are ordered by priority. Long because of its table of cases.
func TestMirrorLists(t *testing.T) {
	const azure = "http://azure.example.org/ubuntu/\tpriority:1\nhttps://archive.example.org/ubuntu/\tpriority:2\nhttps://security.example.org/ubuntu/\tpriority:3\n"
	m, _ := machine(t, map[string]string{
		"sources.list.d/a.list": `deb mirror+file:/etc/apt/apt-mirrors.txt bookworm main
deb mirror+file:/etc/apt/apt-mirrors.txt bookworm-updates main
deb mirror+file:///etc/apt/mixed.txt bookworm main
deb-src mirror+file:/etc/apt/mixed.txt bookworm contrib
deb mirror+file:/etc/apt/empty.txt bookworm main
deb mirror+file:/etc/apt/useless.txt bookworm main
deb mirror+file:/etc/apt/absent.txt bookworm main
deb mirror+http://lists.example.org/one.txt bookworm main
deb mirror://lists.example.org/one.txt bookworm-updates main
deb mirror+https://lists.example.org/gone.txt bookworm main
deb mirror+https://alice:s3cr3t@lists.example.org/one.txt bookworm main
deb mirror+ftp://lists.example.org/one.txt bookworm main
`,
		"apt-mirrors.txt": azure,
		"mixed.txt": `# a comment

http://last.example.org/debian
http://second.example.org/debian	priority:20 arch:amd64 arch:i386 component:main component:contrib
http://first.example.org/debian	unknown:x priority:3
http://first.example.org/debian/	priority:30
http://index.example.org/debian	priority:1 type:index
http://arm.example.org/debian	priority:1 arch:arm64
http://main.example.org/debian	priority:4 component:main
http://alice:s3cr3t@login.example.org/debian	priority:5
ftp://f.example.org/debian
`,
		"empty.txt":   "# nothing\n",
		"useless.txt": "http://index.example.org/debian\ttype:index\n",
	})
	m.Fetch = func(u string) ([]byte, error) {
		if u != "http://lists.example.org/one.txt" {
			return nil, errors.New("404 Not Found")
		}
		return []byte("http://one.example.org/debian\n"), nil
	}
	mirrors, skipped, err := FromFiles(m)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, mm := range mirrors {
		s := fmt.Sprintf("%s: %s suites=%s components=%s sources=%t", mm.Name, strings.Join(mm.URIs, " "), strings.Join(mm.Suites, ","), strings.Join(mm.Components, ","), mm.Sources)
		for _, n := range mm.Notes {
			s += " note=" + n
		}
		got = append(got, s)
		one := mm.URL.String()
		if len(mm.URIs) == 1 != (one == mm.URIs[0]) || len(mm.URIs) > 1 && (one != "" || len(mm.URLs) != len(mm.URIs)) {
			t.Errorf("%s: url %s, urls %v", mm.Name, one, mm.URLs)
		}
	}
	const list = " of file:///etc/apt/mixed.txt is not used: "
	notes := func(lines ...string) (out string) {
		for _, l := range lines {
			out += " note=" + l
		}
		return out
	}
	limited := notes("http://index.example.org/debian"+list+"it is limited to type index", "http://arm.example.org/debian"+list+"it is limited to arch arm64")
	rest := notes("http://login.example.org/debian"+list+"a login in a list of mirrors is not supported",
		"ftp://f.example.org/debian"+list+`scheme "ftp" is not supported: expected http, https or file`)
	if d := cmp.Diff([]string{
		"ubuntu: http://azure.example.org/ubuntu https://archive.example.org/ubuntu https://security.example.org/ubuntu suites=bookworm,bookworm-updates components=main sources=false",
		"debian: http://first.example.org/debian http://main.example.org/debian http://second.example.org/debian http://last.example.org/debian suites=bookworm components=main sources=false" + limited + rest,
		"first.example.org-debian: http://first.example.org/debian http://second.example.org/debian http://last.example.org/debian suites=bookworm components=contrib sources=true" + limited +
			notes("http://main.example.org/debian"+list+"it is limited to component main") + rest,
		"one.example.org-debian: http://one.example.org/debian suites=bookworm,bookworm-updates components=main sources=false",
	}, got); d != "" {
		t.Errorf("mirrors: -want +got\n%s", d)
	}
	at := func(line int, text, reason string) string {
		return fmt.Sprintf("/etc/apt/sources.list.d/a.list:%d: %s: %s", line, text, reason)
	}
	want := []string{
		at(5, "mirror+file:/etc/apt/empty.txt bookworm", "list of mirrors file:///etc/apt/empty.txt is empty"),
		at(6, "mirror+file:/etc/apt/useless.txt bookworm", "http://index.example.org/debian of file:///etc/apt/useless.txt is not used: it is limited to type index"),
		at(7, "mirror+file:/etc/apt/absent.txt bookworm", "list of mirrors file:///etc/apt/absent.txt: open etc/apt/absent.txt: file does not exist"),
		at(10, "mirror+https://lists.example.org/gone.txt bookworm", "list of mirrors https://lists.example.org/gone.txt: 404 Not Found"),
		at(11, "mirror+https://lists.example.org/one.txt bookworm", "list of mirrors: a login in its URI is not supported"),
		at(12, "mirror+ftp://lists.example.org/one.txt bookworm", `list of mirrors: scheme "ftp" is not supported: expected http, https or file`),
	}
	if d := cmp.Diff(want, showSkipped(skipped)); d != "" {
		t.Errorf("skipped: -want +got\n%s", d)
	}
	if slices.ContainsFunc(append(got, showSkipped(skipped)...), func(s string) bool { return strings.Contains(s, "s3cr3t") }) {
		t.Error("a password is shown")
	}
}
