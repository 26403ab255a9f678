package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/config"
)

// The configurations that docs/DEPLOY.md shows load.
func TestDeployConfigurations(t *testing.T) {
	files, err := filepath.Glob("../../docs/deploy/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if _, err := config.Load(f); err != nil {
			t.Error(err)
		}
	}
}

// Where blobs are is checked with the file, by line, and without its secrets.
func TestStoreKeys(t *testing.T) {
	for text, want := range map[string]string{
		`blobs = "dir"`: "",
		`blobs = "s3://bucket/a?endpoint=https://s3.example.org"` + "\nredirect = true":            "",
		`blobs = "s3://bucket"` + "\nmetadata = 'postgres://db.example.org/snapd'":                 "",
		`blobs = "s3://bucket"` + "\nmetadata = 'postgres://db.example.org/snapd'\nrole = 'serve'": "",
		`role = "lead"`:                                   `"lead": expected "all" or "serve"`,
		`role = "serve"`:                                  "needs metadata in PostgreSQL and blobs in a bucket",
		`blobs = "files"`:                                 `expected "dir" or s3://bucket/prefix?endpoint=URL`,
		`blobs = "s3://key:secret@bucket"`:                "name a credentials_file",
		`blobs = "s3://bucket?endpont=x"`:                 `unknown parameter "endpont"`,
		`redirect = true`:                                 "needs blobs in a bucket",
		`credentials_file = "x"`:                          "",
		`blobs = "s3://bucket"` + "\n" + `cache = "1MiB"`: "expected at least 67108864",
		`blobs = "s3://bucket"` + "\n[server]\naccel = \"X-Sendfile\"": "server.accel needs blobs on this machine",
	} {
		_, err := config.Parse("/etc/x/config.toml", []byte("[store]\n"+text+"\n"))
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "config.toml:") || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v, expected %q", text, err, want)
		}
	}
	c, err := config.Parse("/etc/x/config.toml", []byte("[store]\nblobs = 's3://bucket'\ncredentials_file = 'c'\n"))
	if err != nil || c.Store.CredentialsFile != "/etc/x/c" {
		t.Errorf("%v, %v", c, err)
	}
}
