package httpd_test

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
)

// reply is an answer to a POST.
type reply struct {
	status      int
	ctype, body string
}

// debrebuild.py posts a .buildinfo file as a file of a form, and reads results.
func TestBuildinfo(t *testing.T) {
	s, at := machineSite(t, config.OnDemand)
	post := func(query, name, text string, file bool) reply {
		t.Helper()
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		if file {
			part, err := form.CreateFormFile(name, "tool_1.0-1_amd64.buildinfo")
			if err != nil {
				t.Fatal(err)
			}
			part.Write([]byte(text))
		} else {
			form.WriteField(name, text)
		}
		form.Close()
		r, err := http.Post(s.public.URL+"/mr/buildinfo"+query, form.FormDataContentType(), &body)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		got, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return reply{r.StatusCode, r.Header.Get("Content-Type"), string(got)}
	}
	info := func(depends string) string {
		return "Format: 1.0\nSource: tool\nBuild-Architecture: amd64\nInstalled-Build-Depends:\n" + depends
	}
	place := func(timestamps ...string) any {
		list := []any{}
		for _, ts := range timestamps {
			list = append(list, ts)
		}
		return map[string]any{"archive_name": "debian-main", "suite_name": "stable", "component_name": "main", "architecture": "amd64", "timestamps": list}
	}
	for _, c := range []struct {
		name, query, depends string
		status               int
		want                 []any
	}{
		{"one timestamp", "", " a (= 1),\n libtool+1 (= 1:1.0-1),\n tool-doc:all (= 7:1.0-1)\n", 200, []any{place(at[2])}},
		{"two timestamps", "?suite_name=stable", " libtool+1 (= 1:1.0~rc1+b1-1),\n a (= 1)\n", 200, []any{place(at[1], at[2])}},
		{"another suite", "?suite_name=sid", " a (= 1)\n", 404, []any{"a=1"}},
		{"unknown", "", " a (= 1),\n nothing (= 2)\n", 404, []any{"nothing=2"}},
	} {
		for _, file := range []bool{true, false} {
			w := post(c.query, "buildinfo", info(c.depends), file)
			var got struct {
				Results []any `json:"results"`
			}
			if err := json.Unmarshal([]byte(w.body), &got); err != nil || w.status != c.status || w.ctype != "application/json" {
				t.Errorf("%s: %+v, %v", c.name, w, err)
			}
			if d := cmp.Diff(c.want, got.Results); d != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, d)
			}
		}
	}
	for name, w := range map[string]reply{
		"no field":        post("", "other", "x", true),
		"not a buildinfo": post("", "buildinfo", "Format: 2.0\n", true),
		"empty":           post("", "buildinfo", "", false),
	} {
		if w.status != http.StatusBadRequest {
			t.Errorf("%s: %+v", name, w)
		}
	}
	if a := s.get("/mr/buildinfo"); a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %s", a.Status)
	}
}

// The timestamps of a month or a year, with links that debrebuild.py reads.
func TestArchiveMonth(t *testing.T) {
	s, at := machineSite(t, config.OnDemand)
	link := regexp.MustCompile(`<a href="([0-9TZ]+)/">`)
	year, month := at[0][:4], at[0][4:6]
	for query, want := range map[string]string{
		"?year=" + year:                     strings.Join(at[:], " "),
		"?year=" + year + "&month=" + month: strings.Join(at[:], " "),
		"?year=" + year + "&month=" + strings.TrimPrefix(month, "0"): strings.Join(at[:], " "),
		"?year=1999&month=12": "",
	} {
		for _, archive := range []string{"debian-main", "debian"} {
			a := s.get("/archive/" + archive + "/" + query)
			var got []string
			for _, m := range link.FindAllStringSubmatch(a.body, -1) {
				got = append(got, m[1])
			}
			if a.StatusCode != http.StatusOK || strings.Join(got, " ") != want {
				t.Errorf("%s %q: %s, %v, expected %s", archive, query, a.Status, got, want)
			}
		}
	}
	for query, status := range map[string]int{"?year=x": 400, "?year=2026&month=13": 400, "?month=1": 400} {
		if a := s.get("/archive/debian-main/" + query); a.StatusCode != status {
			t.Errorf("%s: %s", query, a.Status)
		}
	}
	if a := s.get("/archive/nothing/?year=2026"); a.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown archive: %s", a.Status)
	}
}

// The sources for what a rebuilder has: a .buildinfo file, a bill of materials, the
// status file of dpkg.
func TestSourcesForFiles(t *testing.T) {
	s, at := machineSite(t, config.OnDemand)
	for name, text := range map[string]string{
		"buildinfo":   "Format: 1.0\nSource: tool\nBuild-Architecture: amd64\nInstalled-Build-Depends:\n a (= 1),\n libtool+1 (= 1:1.0-1)\n",
		"dpkg status": "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\nPackage: libtool+1\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:1.0-1\n",
		"CycloneDX":   `{"bomFormat": "CycloneDX", "specVersion": "1.5", "components": [{"name": "a", "purl": "pkg:deb/debian/a@1?arch=amd64"}, {"name": "libtool+1", "purl": "pkg:deb/debian/libtool%2B1@1%3A1.0-1?arch=amd64"}]}`,
		"SPDX":        "SPDXVersion: SPDX-2.3\nPackageName: a\nExternalRef: PACKAGE-MANAGER purl pkg:deb/debian/a@1?arch=amd64\nPackageName: libtool+1\nExternalRef: PACKAGE-MANAGER purl pkg:deb/debian/libtool%2B1@1%3A1.0-1?arch=amd64\n",
	} {
		var res api.SourcesResult
		s.call("sources", api.SourcesRequest{For: &api.ManifestFile{Name: "file", Data: []byte(text)}}, &res)
		want := &api.Cover{Snapshots: []api.CoverSnapshot{{Ref: "debian@" + at[2], Suites: []string{"stable"}, Packages: 2}}, Missing: []string{}, Minimal: true}
		if d := cmp.Diff(want, res.Cover); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}
