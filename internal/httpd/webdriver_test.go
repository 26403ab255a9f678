package httpd_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"example.org/snapd/internal/needs"
)

// browser is a headless Chromium, controlled through chromedriver by the W3C's WebDriver
// protocol.
type browser struct {
	t       testing.TB
	session string // URL
}

// newBrowser starts a browser, which ends with the test.
func newBrowser(t testing.TB) *browser {
	t.Helper()
	needs.Programs(t, "chromium", "chromedriver")
	cmd := exec.Command("chromedriver", "--port=0") // the context of the test ends before its clean-up
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	port := ""
	for lines := bufio.NewScanner(out); port == "" && lines.Scan(); {
		if m := regexp.MustCompile(`started successfully on port (\d+)`).FindStringSubmatch(lines.Text()); m != nil {
			port = m[1]
		}
	}
	go io.Copy(io.Discard, out)
	b := &browser{t: t, session: "http://127.0.0.1:" + port + "/session"}
	args := []string{"--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir=" + t.TempDir()}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox")
	}
	var made struct{ SessionID string }
	b.do("POST", "", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{"goog:chromeOptions": map[string]any{"args": args}}}}, &made)
	b.session += "/" + made.SessionID
	t.Cleanup(func() {
		b.do("DELETE", "", nil, nil)
		cmd.Process.Kill()
		cmd.Wait()
	})
	return b
}

// do runs a command of the protocol, and decodes its value.
func (b *browser) do(method, path string, args, value any) {
	b.t.Helper()
	var body io.Reader
	if args != nil {
		data, err := json.Marshal(args)
		if err != nil {
			b.t.Fatal(err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, b.session+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.t.Fatalf("%s %s: status %d, %v: %.1000s", method, path, resp.StatusCode, err, data)
	}
	if value == nil {
		return
	}
	if err := json.Unmarshal(data, &struct{ Value any }{value}); err != nil {
		b.t.Fatalf("%s %s: %v: %.1000s", method, path, err, data)
	}
}

// open loads a page.
func (b *browser) open(url string) {
	b.t.Helper()
	b.do("POST", "/url", map[string]string{"url": url}, nil)
}

// address is that of the page which is shown.
func (b *browser) address() (url string) {
	b.t.Helper()
	b.do("GET", "/url", nil, &url)
	return url
}

// js runs the body of a function in the page, and decodes what it returns.
func (b *browser) js(value any, body string) {
	b.t.Helper()
	b.do("POST", "/execute/sync", map[string]any{"script": body, "args": []any{}}, value)
}

// devtools sends a command of the Chrome DevTools protocol.
func (b *browser) devtools(command string, params map[string]any) {
	b.t.Helper()
	b.do("POST", "/goog/cdp/execute", map[string]any{"cmd": command, "params": params}, nil)
}

// screen sets the size of the screen in CSS pixels, and the colours that the user prefers:
// "light" or "dark".
func (b *browser) screen(width, height int, colours string) {
	b.t.Helper()
	b.devtools("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
	b.devtools("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": colours}}})
}

// keys types on the keyboard; the keys of the protocol are \ue004 for Tab and \ue007 for
// Enter.
func (b *browser) keys(text string) {
	b.t.Helper()
	var actions []any
	for _, r := range text {
		for _, kind := range []string{"keyDown", "keyUp"} {
			actions = append(actions, map[string]string{"type": kind, "value": string(r)})
		}
	}
	b.do("POST", "/actions", map[string]any{"actions": []any{map[string]any{"type": "key", "id": "keyboard", "actions": actions}}}, nil)
}

// screenshot is the visible part of the page, as PNG.
func (b *browser) screenshot() []byte {
	b.t.Helper()
	var s string
	b.do("GET", "/screenshot", nil, &s)
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// finding is a fault that axe-core finds in a page.
type finding struct {
	ID, Impact, Help string
	Nodes            []struct{ HTML string }
}

func (f finding) String() string {
	s := fmt.Sprintf("%s (%s): %s", f.ID, f.Impact, f.Help)
	for i, n := range f.Nodes {
		if i < 3 {
			s += "\n\t" + n.HTML
		}
	}
	return s
}

// axe returns the serious faults that axe-core, given its source and options, finds.
func (b *browser) axe(source, options string) (serious []finding) {
	b.t.Helper()
	b.js(nil, "if (!window.axe) {"+source+"}")
	var res struct {
		Error      string
		Violations []finding
	}
	b.do("POST", "/execute/async", map[string]any{"args": []any{}, "script": `const done = arguments[0];
axe.run(document, Object.assign({resultTypes: ["violations"]}, ` + options + `)).then(r => done({violations: r.violations.map(v => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.map(n => ({html: n.html}))}))}), e => done({error: String(e)}))`}, &res)
	if res.Error != "" {
		b.t.Fatalf("axe: %s", res.Error)
	}
	for _, f := range res.Violations {
		if f.Impact == "serious" || f.Impact == "critical" {
			serious = append(serious, f)
		}
	}
	return serious
}
