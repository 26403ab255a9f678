package config_test

import (
	"errors"
	"strings"
	"testing"

	"example.org/snapd/internal/config"
)

func TestLocal(t *testing.T) {
	const least = "[[mirror]]\nname = 'own'\nlocal = true\n"
	const deb = least + "type = 'deb'\nsuites = ['stable']\ncomponents = ['main']\narchitectures = ['amd64']\n"
	c, err := config.Parse("c.toml", []byte(deb+"[[mirror]]\nname = 'rpms'\ntype = 'rpm'\nlocal = true\n"))
	if err != nil {
		t.Fatal(err)
	}
	if m := c.Mirrors[0]; m.Origin != "own" || m.Label != "own" || m.Download != config.All || !m.Sources || !m.Udebs || len(m.Languages) != 0 {
		t.Errorf("defaults: %+v", m)
	}
	if m := c.Mirrors[1]; m.CheckPackages() {
		t.Errorf("without a keyring, packages need no signature: %+v", m)
	}
	for _, bad := range []struct{ text, key string }{
		{least + "type = 'apk'\n", "type"},
		{least + "type = 'deb'\ncomponents = ['main']\narchitectures = ['amd64']\n", "suites"},
		{least + "type = 'deb'\nsuites = ['s']\narchitectures = ['amd64']\n", "components"},
		{least + "type = 'deb'\nsuites = ['s']\ncomponents = ['main']\n", "architectures"},
		{strings.Replace(deb, "'stable'", "'stable/'", 1), "suites"},
		{strings.Replace(deb, "'stable'", "'a', 'a'", 1), "suites"},
		{strings.Replace(deb, "'main'", "'a/b'", 1), "components"},
		{strings.Replace(deb, "'amd64'", "'amd64', 'all'", 1), "architectures"},
		{deb + "url = 'https://mirror.example.org/'\n", "url"},
		{deb + "interval = '6h'\n", "interval"},
		{deb + "download = 'on_demand'\n", "download"},
		{deb + "contents = true\n", "contents"},
		{deb + "packages = ['a*']\n", "packages"},
		{deb + "origin = \"a\\nb\"\n", "origin"},
		{deb + "gpgcheck = true\n", "gpgcheck"},
		{least + "type = 'rpm'\nsuites = ['s']\n", "suites"},
		{least + "type = 'rpm'\ngpgcheck = true\n", "keyring"},
		{least + "type = 'rpm'\nrepo_gpgcheck = false\n", "repo_gpgcheck"},
		{"[[mirror]]\nname = 'm'\ntype = 'deb'\nurl = 'http://mirror.example.org/'\nsuites = ['s']\ncomponents = ['main']\nkeyring = 'k'\norigin = 'x'\n", "origin"},
	} {
		_, err := config.Parse("c.toml", []byte(bad.text))
		if !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), ": "+bad.key+": ") {
			t.Errorf("%q: %v, expected an error about %s", bad.text, err, bad.key)
		}
	}
}
