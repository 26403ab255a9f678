package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

// sample is the name of a small rpm repository, its mirror and its package. It is needed
// because few machines have sources for both apt and dnf.
const sample = "sample"

// sampleMirror publishes the repository and returns the configuration of its mirror, and
// the key of its packages.
func sampleMirror(p *parts) (mirror, key string) {
	private := signtest.NewKey(p, sample)
	signer := signtest.Signer(p, private)
	repo := rpmtest.New(rpmtest.Options{Signer: signer})
	repo.Add(rpmtest.Package{Name: sample, Version: "1.0"})
	repo.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	srv := httptest.NewServer(repo)
	p.Cleanup(srv.Close)
	return fmt.Sprintf("\n[[mirror]]\nname = %q\ntype = \"rpm\"\nurl = %q\narchitectures = [\"x86_64\"]\nkeyring = %q\n", sample, srv.URL, signtest.KeyringFile(p, private)),
		signer.PublicKeyArmored()
}

// mirrorName matches the name of a mirror in a configuration.
var mirrorName = regexp.MustCompile(`(?m)^\s*name\s*=\s*"([^"]+)"`)

// clients makes apt and dnf read the freezes from each node.
func (c *cluster) clients(ctx context.Context, p *parts) error {
	for _, n := range c.nodes {
		for _, client := range []struct {
			program string
			read    func(context.Context, *parts, *node) (string, error)
		}{{"apt-get", c.apt}, {"dnf", c.dnf}} {
			if _, err := exec.LookPath(client.program); err != nil {
				say("%s: %s is not installed", n.name, client.program)
				continue
			}
			got, err := client.read(ctx, p, n)
			if err != nil {
				return fmt.Errorf("%s from %s: %w", client.program, n.name, err)
			}
			say("%s: %s got %s", n.name, client.program, got)
		}
	}
	return nil
}

// apt makes apt download a package of demo-1 from a node.
func (c *cluster) apt(ctx context.Context, p *parts, n *node) (string, error) {
	sources, err := c.text(ctx, n, "/frozen/demo-1/sources")
	if err != nil {
		return "", err
	}
	arch, err := exec.CommandContext(ctx, "dpkg", "--print-architecture").Output()
	if err != nil {
		return "", err
	}
	apt := debtest.NewApt(p, sources)
	name := strings.TrimSpace(string(arch))
	apt.Options = []string{"APT::Architecture=" + name, "APT::Architectures::=" + name}
	if out, err := apt.Try("apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any"); err != nil {
		return "", fmt.Errorf("apt-get update: %w: %s", err, out)
	}
	names, err := apt.Try("apt-cache", "pkgnames")
	if err != nil || names == "" {
		return "", fmt.Errorf("apt-cache pkgnames: %w: %q", err, names)
	}
	name, _, _ = strings.Cut(names, "\n")
	if out, err := apt.Try("apt-get", "download", "-qq", name); err != nil {
		return "", fmt.Errorf("apt-get download %s: %w: %s", name, err, out)
	}
	files, err := os.ReadDir(apt.Root)
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".deb") {
			return f.Name(), nil
		}
	}
	return "", errors.Join(fmt.Errorf("apt-get download %s: no package was downloaded", name), err)
}

// dnf makes dnf install the package of sample-1 from a node into an empty root.
func (c *cluster) dnf(ctx context.Context, p *parts, n *node) (string, error) {
	key, err := c.text(ctx, n, "/key.asc")
	if err != nil {
		return "", err
	}
	got, err := rpmtest.TryInstall(p, "http://"+n.addr+"/frozen/"+sample+"-1/"+sample+"/", []string{key, c.sampleKey}, true, sample)
	return strings.Join(got, " "), err
}

// text returns a file that a node serves, with the balancer's address replaced by the
// node's.
func (c *cluster) text(ctx context.Context, n *node, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return strings.ReplaceAll(string(body), c.public, "http://"+n.addr), err
}
