package config_test

import (
	"fmt"
	"strings"
	"testing"

	"example.org/snapd/internal/config"
)

// With allow_parent the base URLs are the parents of the configured ones, which
// end in the name of the repository's directory.
func TestAllowParent(t *testing.T) {
	parse := func(text string) (*config.Config, error) {
		return config.Parse("c.toml", []byte(rpmMirror+text))
	}
	c, err := parse("allow_parent = true\nurls = [\"https://a.example.org/f/os/\", \"file:///srv/g/os\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	m := c.Mirrors[0]
	if got := fmt.Sprint(m.BaseURLs(), m.ParentSuite(), m.ConfiguredURLs()); got != "[https://a.example.org/f file:///srv/g]os[https://a.example.org/f/os file:///srv/g/os]" {
		t.Error(got)
	}
	for text, want := range map[string]string{
		"url = \"https://a.example.org/\"\n":                                           `allow_parent: mirror "m": "https://a.example.org" has no parent: expected a URL that ends in a directory name`,
		"url = \"https://a.example.org/%2e%2e\"\n":                                     "has no parent",
		"urls = [\"https://a.example.org/os\", \"https://b.example.org/x86_64\"]\n":    `"https://b.example.org/x86_64": expected a URL that ends in os, like the first`,
		"url = \"https://a.example.org/os\"\nmetalink = \"https://a.example.org/m\"\n": "needs url or urls, and cannot be combined with metalink or mirrorlist",
	} {
		if _, err := parse("allow_parent = true\n" + text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q:\ngot  %v\nwant %s", text, err, want)
		}
	}
}
