package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

func runRPM(ctx context.Context, b *bench) error {
	if err := b.makeRPM(ctx); err != nil {
		return err
	}
	if err := b.serve(ctx); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "rpm")
	s, err := b.start(ctx, dir, "", fmt.Sprintf("[[mirror]]\nname = \"fedora\"\ntype = \"rpm\"\nurl = %q\narchitectures = [\"x86_64\"]\nkeyring = %q\ndownload = \"on_demand\"\ninterval = \"\"\n", b.up.url+"/rpm", b.key.keyring))
	if err != nil {
		return err
	}
	defer s.stop()
	files, err := filepath.Glob(filepath.Join(b.fixtures, "rpm", "0", "repodata", "*.zst"))
	if err != nil {
		return err
	}
	decoded, plain, err := b.hashed(ctx, "zstd", files...)
	if err != nil {
		return err
	}
	b.against(plain, "plain metadata")
	var other *cost
	if !b.quick {
		if other, err = b.reposync(ctx, dir); err != nil {
			return err
		}
	}
	first, err := s.ctl(ctx, "sync", "fedora")
	if err != nil {
		return err
	}
	b.timed("rpm: first sync of metadata", other, first, 0.5, 0.4)
	if other != nil {
		if other, err = b.reposync(ctx, dir); err != nil {
			return err
		}
	}
	idle, err := s.repeated(ctx, 7, "sync", "fedora")
	if err != nil {
		return err
	}
	b.timed("rpm: sync, nothing changed", other, idle, 0.05, 0.4)
	b.add(row{work: "rpm: sync, nothing changed, requests", other: requests(other), ours: fmt.Sprint(idle.requests), bound: "1", ok: judge(idle.requests == 1)})
	manifest := filepath.Join(b.fixtures, "rpm", "manifest")
	c, err := s.ctl(ctx, "freeze", "exact-0", "--manifest", manifest, "--no-sources")
	if err != nil {
		return err
	}
	b.timed("rpm: exact freeze of 2,000 packages, fetching them", decoded, c, 2, 0.4)
	var freezes []cost
	for i := range 3 {
		c, err := s.ctl(ctx, "freeze", fmt.Sprintf("exact-%d", i+1), "--manifest", manifest, "--no-sources")
		if err != nil {
			return err
		}
		freezes = append(freezes, c)
	}
	b.timed("rpm: exact freeze of 2,000 packages, bytes here", decoded, median(freezes), 2, 0.4)
	if c, err = s.ctl(ctx, "verify", "exact-1"); err != nil {
		return err
	}
	b.timed("rpm: verify of it", decoded, c, 3, 0.4)
	return nil
}

// reposync measures how dnf downloads the same metadata, without packages.
func (b *bench) reposync(ctx context.Context, dir string) (*cost, error) {
	root := filepath.Join(dir, "dnf")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	conf := filepath.Join(root, "dnf.conf")
	text := fmt.Sprintf("[main]\nreposdir=%[1]s/none\ncachedir=%[1]s/cache\npersistdir=%[1]s/persist\nlogdir=%[1]s\nplugins=1\ngpgcheck=0\n[bench]\nname=bench\nbaseurl=%[2]s\nexcludepkgs=*\nmetadata_expire=0\n", root, b.up.url+"/rpm")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "dnf", "-c", conf, "-q", "--forcearch=x86_64", "--releasever=43", "reposync", "--repoid=bench", "--download-metadata", "-p", filepath.Join(root, "copy"))
	c, err := b.measure(ctx, cmd)
	return &c, err
}
