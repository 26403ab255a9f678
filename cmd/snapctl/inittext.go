package main

import (
	"fmt"
	"strings"

	"example.org/snapd/internal/config"
)

// configText formats the configuration.
func configText(dataDir string, mirrors []initMirror) string {
	var b strings.Builder
	b.WriteString("# Configuration of snapd. See config.example.toml for every key.\n\n")
	tomlKey(&b, "data_dir", dataDir)
	b.WriteString("\n[server]\nlisten = \"127.0.0.1:8080\"\n")
	for _, m := range mirrors {
		b.WriteString("\n")
		if len(m.from) > 0 {
			b.WriteString("# from " + clean(strings.Join(m.from, ", ")) + "\n")
		}
		for _, n := range m.notes {
			b.WriteString("# note: " + clean(n) + "\n")
		}
		b.WriteString("[[mirror]]\n")
		tomlKey(&b, "name", string(m.Name))
		tomlKey(&b, "type", m.Type)
		if len(m.urls) == 1 {
			tomlKey(&b, "url", m.urls[0])
		} else {
			tomlList(&b, "urls", m.urls)
		}
		tomlKey(&b, "metalink", m.metalink)
		tomlKey(&b, "mirrorlist", m.mirrorlist)
		tomlList(&b, "suites", m.Suites)
		tomlList(&b, "components", m.Components)
		tomlList(&b, "architectures", m.Architectures)
		tomlList(&b, "keyring", m.Keyring)
		tomlKey(&b, "auth_file", m.AuthFile)
		tomlKey(&b, "ca_file", m.CAFile)
		tomlKey(&b, "client_cert", m.ClientCert)
		tomlKey(&b, "client_key", m.ClientKey)
		if m.Type == "deb" {
			fmt.Fprintf(&b, "sources = %t\n", m.Sources)
		}
		if m.Languages != nil {
			fmt.Fprintf(&b, "languages = %s\n", tomlStrings(m.Languages))
		}
		for _, f := range []struct {
			key string
			on  bool
		}{{"contents", m.Contents}, {"udebs", m.Udebs}, {"installer", m.Installer}} {
			if f.on {
				fmt.Fprintf(&b, "%s = true\n", f.key)
			}
		}
		tomlList(&b, "indices", m.Indices)
		tomlList(&b, "packages", m.Packages)
		if m.GPGCheck != nil {
			fmt.Fprintf(&b, "gpgcheck = %t\n", *m.GPGCheck)
		}
		if m.RepoGPGCheck != nil {
			fmt.Fprintf(&b, "repo_gpgcheck = %t\n", *m.RepoGPGCheck)
		}
		download := m.Download
		if download == "" {
			download = config.OnDemand
		}
		tomlKey(&b, "download", download)
		b.WriteString("interval = \"6h\"\n")
	}
	if len(mirrors) == 0 {
		b.WriteString(`
# A mirror looks like this:
#
# [[mirror]]
# name          = "debian"
# type          = "deb"
# url           = "https://mirror.example.org/debian"
# suites        = ["bookworm", "bookworm-updates"]
# components    = ["main"]
# architectures = ["amd64"]
# keyring       = "/usr/share/keyrings/debian-archive-keyring.gpg"
# sources       = true
# interval      = "6h"
`)
	}
	return b.String()
}

// tomlKey writes a key with a string value, unless the value is empty.
func tomlKey(b *strings.Builder, key, value string) {
	if value != "" {
		fmt.Fprintf(b, "%s = %s\n", key, config.Quote(value))
	}
}

func tomlList(b *strings.Builder, key string, list []string) {
	if len(list) > 0 {
		fmt.Fprintf(b, "%s = %s\n", key, tomlStrings(list))
	}
}

func tomlStrings(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, config.Quote(s))
	}
	return "[" + strings.Join(out, ", ") + "]"
}
