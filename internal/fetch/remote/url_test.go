package remote_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/pelletier/go-toml/v2"

	"example.org/snapd/internal/fetch/remote"
)

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "",
		"https://mirror.example.org/debian": "https://mirror.example.org/debian",
		"https://mirror.example.org/a%20b+c~d/@group/x":                   "https://mirror.example.org/a%20b+c~d/@group/x",
		"file:///srv/debian":                                              "file:///srv/debian",
		"/srv/debian":                                                     "/srv/debian",
		"http://alice:s3cret@mirror.example.org/r":                        "http://mirror.example.org/r",
		"http://s3cret@mirror.example.org/r":                              "http://mirror.example.org/r",
		"http://:s3cret@mirror.example.org/r":                             "http://mirror.example.org/r",
		"http://alice:s3@cret@mirror.example.org/r":                       "http://mirror.example.org/r",
		"http://alice:s3%40cret@[::1]:8080/r":                             "http://[::1]:8080/r",
		"http://alice:s3/cret@mirror.example.org/r":                       "http://xxxxx",
		"http://alice:s3#cret@mirror.example.org/r":                       "http://xxxxx",
		"http://alice:s3cret%zz@mirror.example.org/r":                     "http://mirror.example.org/r",
		"http:alice:s3cret@mirror.example.org/r":                          "xxxxx",
		"http:/alice:s3cret@mirror.example.org/r":                         "http://xxxxx",
		"https:///alice:s3cret@mirror.example.org/r":                      "https://xxxxx",
		"file:///srv/mirror":                                              "file:///srv/mirror",
		"alice:s3cret@mirror.example.org":                                 "xxxxx",
		"alice@mirror.example.org":                                        "xxxxx",
		"https://m.example.org/metalink?repo=fedora-43&arch=x86_64":       "https://m.example.org/metalink?repo=fedora-43&arch=x86_64",
		"https://m.example.org/metalink?repo=fedora-43&token=s3cret":      "https://m.example.org/metalink?repo=fedora-43&token=xxxxx",
		"https://m.example.org/r?X-Amz-Signature=s3cret&arch=x86_64":      "https://m.example.org/r?X-Amz-Signature=xxxxx&arch=x86_64",
		"https://m.example.org/r?s3cret":                                  "https://m.example.org/r?xxxxx",
		"https://m.example.org/r?s3cret=":                                 "https://m.example.org/r?s3cret=xxxxx",
		"https://m.example.org/r?repo=https://a:s3cret@b/":                "https://m.example.org/r?repo=xxxxx",
		"https://m.example.org/r?repo=a;token=s3cret":                     "https://m.example.org/r?repo=xxxxx",
		"https://m.example.org/r?%74oken=s3cret":                          "https://m.example.org/r?xxxxx",
		"https://m.example.org/r#s3cret":                                  "https://m.example.org/r",
		"ftp://alice:s3cret@mirror.example.org/r":                         "ftp://mirror.example.org/r",
		"socks5://alice:s3cret@proxy.example.org:1080":                    "socks5://proxy.example.org:1080",
		"https://m.example.org/mirrorlist?country=de&protocol=https,http": "https://m.example.org/mirrorlist?country=de&protocol=https,http",
	} {
		if got := remote.Redact(in); got != want {
			t.Errorf("%s: got %s, expected %s", in, got, want)
		}
		if got := remote.NewURL(in).String(); got != want {
			t.Errorf("URL %s: got %s, expected %s", in, got, want)
		}
	}
}

func TestScrub(t *testing.T) {
	for in, want := range map[string]string{
		"nothing here": "nothing here",
		`Get "http://alice:s3cret@h/x?token=s3cret": dial tcp: refused`: `Get "http://h/x?token=xxxxx": dial tcp: refused`,
		"at http://alice:s3cret@h/x: 404; at https://h/y?t=s3cret, 500": "at http://h/x: 404; at https://h/y?t=xxxxx, 500",
		"see https://h/y.": "see https://h/y.",
		"proxy http://alice:s3cret%zz@h:3128/ is bad": "proxy http://h:3128/ is bad",
		"(http://alice:s3cret@h/x)":                   "(http://h/x)",
	} {
		if got := remote.Scrub(in); got != want {
			t.Errorf("%s:\ngot      %s\nexpected %s", in, got, want)
		}
	}
}

// A URL prints without its secrets whichever way it is printed, also as a field
// that nobody but its package may touch.
func TestURLNeverPrintsSecrets(t *testing.T) {
	u := remote.NewURL("https://alice:s3cret@mirror.example.org/r?token=s3cret#s3cret")
	type open struct {
		URL remote.URL `toml:"url"`
		Ptr *remote.URL
	}
	type closed struct {
		url  remote.URL
		urls []remote.URL
		byID map[string]remote.URL
	}
	type deep struct{ c *closed }
	c := closed{u, []remote.URL{u}, map[string]remote.URL{"a": u}}
	var out bytes.Buffer
	for _, v := range []any{u, &u, open{u, &u}, c, &c, deep{&c}, []remote.URL{u}, map[remote.URL]int{u: 1}, errors.Join(fmt.Errorf("get %s: %w", u, errors.New("x")))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%10.3v", "%o"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("x", "v", v)
		}
	}
	if err := toml.NewEncoder(&out).Encode(open{u, &u}); err != nil {
		t.Fatal(err)
	}
	if err := template.Must(template.New("").Parse("{{.}} {{.URL}} {{printf `%v` .}}")).Execute(&out, open{u, &u}); err != nil {
		t.Fatal(err)
	}
	hex := fmt.Sprintf("%x", "s3cret")
	for _, secret := range []string{"s3cret", "alice", hex, strings.ToUpper(hex), "[115 51 99"} {
		if i := bytes.Index(out.Bytes(), []byte(secret)); i >= 0 {
			t.Errorf("%q in …%s…", secret, out.Bytes()[max(0, i-200):min(out.Len(), i+50)])
		}
	}
	if !strings.Contains(out.String(), "https://mirror.example.org/r?token=xxxxx") {
		t.Error("the URL is not shown at all")
	}
	if b, err := json.Marshal(struct{ U remote.URL }{remote.NewURL("http://h/\x00\u2028\"")}); err != nil || !json.Valid(b) {
		t.Errorf("JSON %s: %v", b, err)
	}
}

func TestJoin(t *testing.T) {
	for _, c := range []struct{ base, path, want string }{
		{"http://h/debian", "dists/x/InRelease", "http://h/debian/dists/x/InRelease"},
		{"http://h/debian///", "a b+c~d", "http://h/debian/a%20b%2bc%7ed"},
		{"http://h/a+b~c", "d", "http://h/a+b~c/d"},
		{"http://h", "100%2b?#{é}", "http://h/100%252b%3f%23%7b%c3%a9%7d"},
		{"/a+b", "c+d~e", "/a+b/c+d~e"},
		{"http://h/r/?repo=x", "a", "http://h/r/a?repo=x"},
		{"http://h?repo=x", "a", "http://h/a?repo=x"},
		{"http://h/r#x", "a", "http://h/r/a"},
	} {
		if got := remote.NewURL(c.base).Join(c.path).String(); got != c.want {
			t.Errorf("%s and %s: got %s, expected %s", c.base, c.path, got, c.want)
		}
		if got := remote.NewURL(c.base).Foreign().Join(c.path); !got.IsForeign() {
			t.Errorf("%s: the mark is lost", got)
		}
	}
	if a, b := remote.NewURL("http://h/a").Join("b"), remote.NewURL("http://h/a/b"); a != b {
		t.Errorf("%s is not equal to itself", a)
	}
}

// Only fetch can make the token that opens a URL: the compiler refuses the import
// elsewhere, and nobody else within fetch's directory has it.
func TestOnlyFetchReadsSecrets(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "example.org/snapd/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	const token = "example.org/snapd/internal/fetch/internal/reveal"
	var users []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if slices.Contains(f[1:], token) {
			users = append(users, f[0])
		}
	}
	if want := []string{"example.org/snapd/internal/fetch", "example.org/snapd/internal/fetch/remote"}; !slices.Equal(users, want) {
		t.Errorf("%v import the token, expected %v", users, want)
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("alice", "s3cret", "h", "token", "s3cret")
	f.Add("", "a/b", "h:80", "", "")
	f.Fuzz(func(t *testing.T, user, password, host, key, value string) {
		secret := "s3cr3t"
		for _, s := range []string{
			"http://" + user + ":" + secret + password + "@" + host + "/r",
			"http://" + secret + user + "@" + host + "/r",
			"http://" + host + "/r?token=" + value + secret,
		} {
			if strings.Count(s, "@") > 1 || strings.ContainsAny(user+password+host+value, "/?#&=") {
				continue // what is the secret then is anyone's guess
			}
			if out := remote.Redact(s); strings.Contains(out, secret) {
				t.Errorf("%q: %q", s, out)
			}
		}
	})
}
