package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Long because each measurement depends on the state that the previous one left.
func runDeb(ctx context.Context, b *bench) error {
	if err := b.makeDeb(ctx); err != nil {
		return err
	}
	if err := b.serve(ctx); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "deb")
	s, err := b.start(ctx, dir, "", fmt.Sprintf("[[mirror]]\nname = \"debian\"\ntype = \"deb\"\nurl = %q\nsuites = [\"stable\"]\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\nkeyring = %q\nsources = false\ndownload = \"all\"\ninterval = \"\"\nlanguages = []\n",
		b.up.url+"/deb", b.key.keyring))
	if err != nil {
		return err
	}
	defer s.stop()
	decoded, plain, err := b.hashed(ctx, "xz", filepath.Join(b.fixtures, "deb", "0", "dists", "stable", "main", "binary-amd64", "Packages.xz"))
	if err != nil {
		return err
	}
	b.against(plain, "plain index")
	a := &aptly{b: b, dir: filepath.Join(dir, "aptly")}
	if !b.quick {
		if err := a.init(ctx); err != nil {
			return err
		}
	}

	// First sync.
	other, err := a.run(ctx, "mirror", "update", "m")
	if err != nil {
		return err
	}
	first, err := s.ctl(ctx, "sync", "debian")
	if err != nil {
		return err
	}
	b.timed("first sync, all packages", other, first, 0.55, 3)
	if err := b.physical(filepath.Join(dir, "physical"), filepath.Join(s.dir, "blobs")); err != nil {
		return err
	}

	// Nothing changed.
	if other, err = a.run(ctx, "mirror", "update", "m"); err != nil {
		return err
	}
	idle, err := s.repeated(ctx, 7, "sync", "debian")
	if err != nil {
		return err
	}
	b.timed("sync, nothing changed", other, idle, 0.01, 4)
	b.add(row{work: "sync, nothing changed, requests a suite", other: requests(other), ours: fmt.Sprint(idle.requests), bound: "1", ok: judge(idle.requests == 1)})

	// Freeze all.
	if other, err = a.publish(ctx, 0); err != nil {
		return err
	}
	var freezes []cost
	for i := range 3 {
		c, err := s.ctl(ctx, "freeze", fmt.Sprintf("all-0-%d", i), "--mirror", "debian")
		if err != nil {
			return err
		}
		freezes = append(freezes, c)
	}
	b.timed("freeze all", other, median(freezes), 0.05, 4)

	// 63 packages change.
	_, blobs0, err := treeSize(filepath.Join(s.dir, "blobs"))
	if err != nil {
		return err
	}
	if err := b.up.state("deb", "1"); err != nil {
		return err
	}
	if other, err = a.run(ctx, "mirror", "update", "m"); err != nil {
		return err
	}
	change, err := s.ctl(ctx, "sync", "debian")
	if err != nil {
		return err
	}
	b.timed(fmt.Sprintf("sync, %d packages changed", changed1), other, change, 0.25, 4)
	_, blobs1, err := treeSize(filepath.Join(s.dir, "blobs"))
	if err != nil {
		return err
	}
	smallest, err := os.Stat(filepath.Join(b.fixtures, "deb", "1", "dists", "stable", "main", "binary-amd64", "Packages.xz"))
	if err != nil {
		return err
	}
	rest, err := os.Stat(filepath.Join(b.fixtures, "deb", "1", "dists", "stable", "InRelease"))
	if err != nil {
		return err
	}
	// Apart from the index, the new blobs are the signed document and 63 packages of
	// about 80 bytes.
	index := blobs1 - blobs0 - rest.Size()
	b.add(row{work: "index blobs of that sync", ours: mega(index), bound: "<= " + mega(smallest.Size()) + " (xz)", ok: judge(index <= smallest.Size()+changed1*200), note: "with the 63 packages' bodies"})

	// Another change, for diff, and freezes of both.
	if _, err := a.run(ctx, "snapshot", "create", "s1", "from", "mirror", "m"); err != nil {
		return err
	}
	differs, err := a.run(ctx, "snapshot", "diff", "s0", "s1")
	if err != nil {
		return err
	}
	if err := b.up.state("deb", "2"); err != nil {
		return err
	}
	if _, err := s.ctl(ctx, "freeze", "all-1", "--mirror", "debian"); err != nil {
		return err
	}
	if _, err := s.ctl(ctx, "sync", "debian"); err != nil {
		return err
	}
	if _, err := s.ctl(ctx, "freeze", "all-2", "--mirror", "debian"); err != nil {
		return err
	}
	c, err := s.repeated(ctx, 5, "diff", "all-1", "all-2")
	if err != nil {
		return err
	}
	b.timed(fmt.Sprintf("diff of two whole freezes, %d changes", changed2), differs, c, 0.25, 4)
	snaps, err := s.snapshots(ctx)
	if err != nil {
		return err
	}
	if c, err = s.repeated(ctx, 5, "diff", snaps[1], snaps[0]); err != nil {
		return err
	}
	b.timed(fmt.Sprintf("diff of two snapshots, %d changes", changed2), differs, c, 0.25, 4)

	// Manifests.
	manifest := filepath.Join(b.fixtures, "deb", "manifest")
	if c, err = s.repeated(ctx, 5, "freeze", "exact-0", "--mirror", "debian", "--manifest", manifest, "--no-sources", "--dry-run"); err != nil {
		return err
	}
	b.timed("resolve a manifest of 2,000 packages, beside decoding the index", decoded, c, 0.5, 4)
	freezes = nil
	for i := range 3 {
		c, err := s.ctl(ctx, "freeze", fmt.Sprintf("exact-%d", i), "--mirror", "debian", "--manifest", manifest, "--no-sources")
		if err != nil {
			return err
		}
		freezes = append(freezes, c)
	}
	b.timed("exact freeze of them, bytes here", decoded, median(freezes), 1.5, 4)
	if c, err = s.repeated(ctx, 3, "verify", "exact-1"); err != nil {
		return err
	}
	b.timed("verify of it", decoded, c, 2, 4)
	if c, err = s.repeated(ctx, 1, "verify", "all-2"); err != nil {
		return err
	}
	b.timed("verify of a whole freeze", decoded, c, 2, 4)
	if err := b.lists(ctx, a, s); err != nil {
		return err
	}
	b.add(row{work: "peak memory of all of these", ours: mega(statusField(s.cmd.Process.Pid, "RssAnon:")) + " now", note: "VmHWM with mapped pages " + mega(statusField(s.cmd.Process.Pid, "VmHWM:"))})
	return b.metadata(ctx, s)
}

// lists measures listing all packages of a freeze of the whole mirror.
func (b *bench) lists(ctx context.Context, a *aptly, s *server) error {
	other, err := a.run(ctx, "mirror", "show", "-with-packages", "m")
	if err != nil {
		return err
	}
	for _, l := range []struct {
		what string
		args []string
	}{
		{"packages of a whole freeze, as a table", []string{"packages", "all-2"}},
		{"packages of a whole freeze, as JSON", []string{"packages", "all-2", "--json"}},
	} {
		c, err := s.repeated(ctx, 5, l.args...)
		if err != nil {
			return err
		}
		b.timed(l.what, other, c, 1, 4)
	}
	var all []cost
	for range 5 {
		c, err := b.measure(ctx, exec.CommandContext(ctx, "curl", "-fsS", "-o", filepath.Join(b.dir, "page"), "http://"+s.addr+"/freeze/all-2?q=z"), s.cmd.Process.Pid)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	b.timed("page of a whole freeze with a query", other, median(all), 0.3, 4)
	return nil
}

// metadata adds a row with the size of a server's metadata.
func (b *bench) metadata(ctx context.Context, s *server) error {
	c, err := s.ctl(ctx, "status", "--json")
	if err != nil {
		return err
	}
	var st struct {
		Used int64 `json:"metadata_bytes"`
		Data int64 `json:"metadata_data_bytes"`
	}
	if err := json.Unmarshal(c.out, &st); err != nil {
		return err
	}
	b.add(row{work: "metadata after these 3 syncs", ours: mega(st.Used) + " of pages", other: mega(st.Data) + " of keys and values", ratio: fmt.Sprintf("%.2f", float64(st.Used)/float64(max(1, st.Data)))})
	return nil
}

func requests(c *cost) string {
	if c == nil {
		return ""
	}
	return fmt.Sprint(c.requests)
}

// snapshots returns the ids of the server's snapshots, newest first.
func (s *server) snapshots(ctx context.Context) ([]string, error) {
	c, err := s.ctl(ctx, "list", "--json")
	if err != nil {
		return nil, err
	}
	var out struct {
		Snapshots []struct {
			ID string `json:"id"`
		} `json:"snapshots"`
	}
	if err := json.Unmarshal(c.out, &out); err != nil {
		return nil, err
	}
	var ids []string
	for _, s := range out.Snapshots {
		ids = append(ids, s.ID)
	}
	if len(ids) < 1 {
		return nil, fmt.Errorf("no snapshots in %s", c.out)
	}
	return ids, nil
}

// physical measures the work that no program can avoid: hashing the bytes with SHA-256,
// and writing them sequentially and durably once.
func (b *bench) physical(file, tree string) error {
	var data []byte
	err := filepath.WalkDir(tree, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		one, err := os.ReadFile(p)
		data = append(data, one...)
		return err
	})
	if err != nil {
		return err
	}
	start := time.Now()
	sha256.Sum256(data)
	hashed := time.Since(start)
	start = time.Now()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer os.Remove(file)
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	b.add(row{work: "physical limit of the first sync", ours: fmt.Sprintf("SHA-256 %s, write and fsync %s", seconds(hashed), seconds(time.Since(start))), note: mega(int64(len(data))) + " of blobs"})
	return nil
}

// aptly runs aptly, the program with which snapd is compared.
type aptly struct {
	b   *bench
	dir string
}

func (a *aptly) cmd(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "aptly", append([]string{"-config=" + filepath.Join(a.dir, "aptly.conf")}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+a.dir)
	return cmd
}

func (a *aptly) init(ctx context.Context) error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	conf, err := json.Marshal(map[string]any{"rootDir": filepath.Join(a.dir, "root"), "downloadConcurrency": 8, "architectures": []string{"amd64"}, "gpgProvider": "gpg", "skipContentsPublishing": true})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(a.dir, "aptly.conf"), conf, 0o600); err != nil {
		return err
	}
	if out, err := a.cmd(ctx, "mirror", "create", "-keyring="+a.b.key.keyring, "m", a.b.up.url+"/deb", "stable", "main").CombinedOutput(); err != nil {
		return fmt.Errorf("aptly mirror create: %w\n%s", err, tail(out))
	}
	return nil
}

// run measures one aptly command. It returns nil if only snapd is measured.
func (a *aptly) run(ctx context.Context, args ...string) (*cost, error) {
	if a.b.quick {
		return nil, nil
	}
	if args[0] == "mirror" && args[1] == "update" {
		args = []string{"mirror", "update", "-keyring=" + a.b.key.keyring, args[2]}
	}
	c, err := a.b.measure(ctx, a.cmd(ctx, args...))
	return &c, err
}

// publish makes a snapshot of the aptly mirror and publishes it, which corresponds to a
// freeze.
func (a *aptly) publish(ctx context.Context, n int) (*cost, error) {
	name := fmt.Sprintf("s%d", n)
	one, err := a.run(ctx, "snapshot", "create", name, "from", "mirror", "m")
	if one == nil || err != nil {
		return one, err
	}
	two, err := a.run(ctx, "publish", "snapshot", "-skip-signing", "-skip-contents", "-distribution=stable", name, name)
	if err != nil {
		return nil, err
	}
	return &cost{wall: one.wall + two.wall, cpu: one.cpu + two.cpu, anon: max(one.anon, two.anon), read: one.read + two.read, written: one.written + two.written}, nil
}
