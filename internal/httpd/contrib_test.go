package httpd_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// exported returns the names of all metrics of a server that has synced and has a
// webhook.
func exported(t *testing.T) []string {
	t.Helper()
	s := newSite(t, nil, func(c *config.Config) { c.Webhooks = []config.Webhook{{Name: "hook", Command: []string{"/bin/true"}}} })
	s.Archive.Add(debtest.Package{Name: "a"})
	s.publish()
	s.sync()
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(s.get("/metrics").body, -1) {
		if names = append(names, m[1]); m[2] == "histogram" {
			names = append(names, m[1]+"_bucket", m[1]+"_count", m[1]+"_sum")
		}
	}
	return names
}

// metricRE matches the names of our metrics in a query.
var metricRE = regexp.MustCompile(`\bsnapd_[a-z_]+`)

// The rules for Prometheus are valid, fire as their tests say, and use metrics that
// exist.
func TestPrometheusRules(t *testing.T) {
	names := exported(t)
	const dir = "../../contrib/prometheus/"
	text, err := os.ReadFile(dir + "frozen-snapd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	used := metricRE.FindAllString(string(text), -1)
	if len(used) < 10 {
		t.Errorf("the rules use %d metrics", len(used))
	}
	for _, n := range used {
		if !slices.Contains(names, n) {
			t.Errorf("a rule uses %s, which is not exported", n)
		}
	}
	tested, err := os.ReadFile(dir + "frozen-snapd.test.yml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/OPERATE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`- alert: (\S+)`).FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(string(tested), "alertname: "+m[1]+"\n") {
			t.Errorf("alert %s has no test in which it fires", m[1])
		}
		if !strings.Contains(string(page), "`"+m[1]+"`") {
			t.Errorf("docs/OPERATE.md does not explain alert %s", m[1])
		}
	}
	needs.Program(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "frozen-snapd.rules.yml"}, {"test", "rules", "frozen-snapd.test.yml"}} {
		cmd := exec.CommandContext(t.Context(), "promtool", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// dashboard is what a test needs of Grafana's format.
type dashboard struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct {
			Name string `json:"name"`
		} `json:"list"`
	} `json:"templating"`
	Panels []struct {
		ID      int    `json:"id"`
		Title   string `json:"title"`
		Type    string `json:"type"`
		GridPos struct {
			H, W, X, Y int
		} `json:"gridPos"`
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
}

// The dashboard for Grafana queries metrics that exist, with variables that it has,
// in panels that do not overlap.
func TestGrafanaDashboard(t *testing.T) {
	names := exported(t)
	text, err := os.ReadFile("../../contrib/grafana/frozen-snapd.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 30 || len(d.Panels) < 10 {
		t.Errorf("%q %q, schema %d, %d panels", d.UID, d.Title, d.SchemaVersion, len(d.Panels))
	}
	variables := []string{}
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	for _, m := range regexp.MustCompile(`\$\{?([a-z]+)\}?`).FindAllStringSubmatch(string(text), -1) {
		if !slices.Contains(variables, m[1]) {
			t.Errorf("variable %s is not defined", m[0])
		}
	}
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q: id %d, %d queries, columns %d to %d", p.Title, p.ID, len(p.Targets), p.GridPos.X, p.GridPos.X+p.GridPos.W)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != "" {
					t.Fatalf("panels %q and %q overlap", other, p.Title)
				}
				taken[at] = p.Title
			}
		}
		for _, q := range p.Targets {
			used := metricRE.FindAllString(q.Expr, -1)
			if len(used) == 0 {
				t.Errorf("panel %q: %s queries nothing of ours", p.Title, q.Expr)
			}
			for _, n := range used {
				if !slices.Contains(names, n) {
					t.Errorf("panel %q uses %s, which is not exported", p.Title, n)
				}
			}
		}
	}
}
