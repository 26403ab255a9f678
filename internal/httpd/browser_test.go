package httpd_test

import (
	"bytes"
	"flag"
	"image"
	"image/png"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// axeVersion is the version of axe-core that .ci/axe fetches.
const axeVersion = "4.14.1"

var updateScreenshots = flag.Bool("screenshots", false, "write docs/screenshots")

// screenshots are the pages that the documentation shows.
const screenshots = "../../docs/screenshots"

// TestBrowser opens the pages in a real Chromium, on a desktop and on a phone, light and
// dark: no page is wider than the screen, no row of a table is higher than three lines,
// axe-core finds nothing serious, forms work, also by keyboard, and the pages look roughly
// as documented.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("opens every page several times")
	}
	b := newBrowser(t)
	axe := axeSource(t)
	b.open("data:text/html,<img src='x'>")
	if len(b.axe(axe, "{}")) == 0 {
		t.Fatal("axe-core finds nothing in a page without language, title and alternative text")
	}
	s := pictured(t)
	for _, path := range s.templates() {
		b.screen(1280, 900, "light")
		b.open(s.public.URL + path)
		for _, f := range b.axe(axe, "{}") {
			t.Errorf("%s: %s", path, f)
		}
		b.screen(1280, 900, "dark")
		for _, f := range b.axe(axe, `{runOnly: ["color-contrast"]}`) {
			t.Errorf("%s, dark: %s", path, f)
		}
		b.screen(360, 740, "light")
		var wide int
		if b.js(&wide, "return document.documentElement.scrollWidth"); wide > 360 {
			t.Errorf("%s: %d px wide on a screen of 360", path, wide)
		}
		var high []string
		b.js(&high, `return [...document.querySelectorAll("tbody tr")].filter(r => {
	const s = getComputedStyle(r.cells[0]), line = parseFloat(s.lineHeight) || 1.5 * parseFloat(s.fontSize)
	return r.getBoundingClientRect().height > 3 * line + parseFloat(s.paddingTop) + parseFloat(s.paddingBottom) + 2
}).map(r => r.innerText)`)
		for _, row := range high {
			t.Errorf("%s: a row of more than three lines at 360 px: %q", path, row)
		}
	}
	b.screen(1280, 900, "light")
	s.useForms(b)
	for name, p := range map[string]struct {
		path, colours string
		width, height int
	}{
		"overview":       {"/", "light", 1280, 900},
		"overview-dark":  {"/", "dark", 1280, 900},
		"overview-phone": {"/", "light", 360, 740},
		"mirror":         {"/mirror/debian", "light", 1280, 900},
		"freeze":         {"/freeze/4.1", "light", 1280, 900},
		"package":        {"/package/hello", "light", 1280, 900},
	} {
		b.screen(p.width, p.height, p.colours)
		b.open(s.public.URL + p.path)
		compareScreenshot(t, filepath.Join(screenshots, name+".png"), b.screenshot())
	}
}

// axeSource returns the program of axe-core, which .ci/axe fetched.
func axeSource(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(cache, "snapd-tools", "axe-"+axeVersion+".js"))
	if err != nil {
		needs.Missing(t, "axe-core is missing: %v (.ci/deps test fetches it)", err)
	}
	return string(data)
}

// pictured is a server with something on each of its pages.
func pictured(t *testing.T) *site {
	s := newSite(t, func(m *config.Mirror) { m.Download = config.OnDemand })
	s.clock = s.Now
	add := func(names, version string) {
		for _, name := range strings.Fields(names) {
			s.Archive.Add(debtest.Package{Name: name, Version: version, Body: bytes.Repeat([]byte(name+version), 4000)})
			s.Archive.AddSource(debtest.Source{Name: name, Version: version})
		}
	}
	add("hello coreutils openssl libc6 bash linux-image-6.1.0-a-long-name-with-many-parts-amd64", "2.10-3")
	s.publish()
	s.sync()
	s.call("freeze", api.FreezeRequest{Name: "4.0", Packages: []string{"hello", "bash"}}, nil)
	for i, v := range []string{"2.10-3+deb12u1", "2.10-3+deb12u2~very.long.version.number", "2.12-1"} {
		s.SetNow(s.Now().Add(time.Duration(30+i) * time.Hour))
		add("hello openssl", v)
		s.publish()
		s.sync()
	}
	s.call("freeze", api.FreezeRequest{Name: "4.1", Packages: []string{"hello", "bash", "openssl"}}, nil)
	s.call("freeze", api.FreezeRequest{Name: "all", All: true}, nil)
	s.call("channel/set", api.ChannelSet{Name: "stable", Freeze: "4.1"}, nil)
	s.call("record/start", api.RecordStart{Name: "nightly"}, nil)
	return s
}

// templates returns the address of one page of each kind that the overview leads to:
// addresses of one kind differ in the names in them.
func (s *site) templates() []string {
	s.t.Helper()
	kinds := map[string]bool{}
	var paths []string
	for path := range s.crawl("/") {
		u, err := url.Parse(path)
		if err != nil {
			s.t.Fatal(err)
		}
		got := s.get(path)
		if got.StatusCode != 200 || !strings.HasPrefix(got.Header.Get("Content-Type"), "text/html") {
			continue
		}
		parts := strings.Split(u.Path, "/")
		kind := parts[1] + strings.Repeat("/", len(parts))
		if slices.Contains([]string{"archive", "channel", "frozen", "record"}, parts[1]) {
			kind = "a directory"
		}
		for _, key := range slices.Sorted(maps.Keys(u.Query())) {
			kind += "?" + key
		}
		if !kinds[kind] {
			kinds[kind] = true
			paths = append(paths, path)
		}
	}
	if len(paths) < 13 {
		s.t.Errorf("%d kinds of pages: %q", len(paths), paths)
	}
	return append(paths, "/search?q=o")
}

// useForms searches, and reaches a link by keyboard alone.
func (s *site) useForms(b *browser) {
	s.t.Helper()
	b.open(s.public.URL + "/")
	b.js(nil, `document.querySelector("form input[name=q]").focus()`)
	b.keys("hello\ue007")
	leads := func(want string) {
		s.t.Helper()
		for end := time.Now().Add(10 * time.Second); !strings.Contains(b.address(), want); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				s.t.Fatalf("the page is %s, expected %s", b.address(), want)
			}
		}
	}
	leads("/package/hello") // the only one of this name
	b.open(s.public.URL + "/")
	b.keys("\ue004")
	var focus struct {
		Tag     string
		Visible bool
		Href    string
	}
	b.js(&focus, `const e = document.activeElement, s = getComputedStyle(e)
return {tag: e.tagName, href: e.href || "", visible: s.outlineStyle != "none" || s.boxShadow != "none"}`)
	if focus.Tag != "A" || !focus.Visible {
		s.t.Errorf("the first Tab leads to %+v, expected a link with a visible focus", focus)
	}
	b.keys("\ue007")
	leads(strings.TrimPrefix(focus.Href, s.public.URL))
}

// compareScreenshot compares two pictures roughly: of the brightness in each field of a
// grid, which fonts hardly change.
func compareScreenshot(t *testing.T, file string, got []byte) {
	t.Helper()
	if *updateScreenshots {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test ./internal/httpd -run TestBrowser -screenshots writes it)", err)
	}
	g, w := brightness(t, got), brightness(t, want)
	if len(g) != len(w) {
		t.Errorf("%s has another size", file)
		return
	}
	sum := 0.0
	for i := range g {
		sum += max(g[i]-w[i], w[i]-g[i])
	}
	if off := sum / float64(len(g)); off > 0.06 {
		t.Errorf("%s: the page looks different: %.3f of the brightness, expected at most 0.06", file, off)
	}
}

// brightness returns the mean brightness, 0 to 1, of each field of 40 pixels square.
func brightness(t *testing.T, data []byte) []float64 {
	t.Helper()
	m, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	const field = 40
	var all []float64
	for y := 0; y < m.Bounds().Dy(); y += field {
		for x := 0; x < m.Bounds().Dx(); x += field {
			r := image.Rect(x, y, x+field, y+field).Intersect(m.Bounds())
			sum := 0.0
			for py := r.Min.Y; py < r.Max.Y; py++ {
				for px := r.Min.X; px < r.Max.X; px++ {
					r, g, b, _ := m.At(px, py).RGBA()
					sum += float64(r+g+b) / 3 / 0xffff
				}
			}
			all = append(all, sum/float64(r.Dx()*r.Dy()))
		}
	}
	return all
}
