package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
)

// damageResult counts the outcomes of damages to the metadata.
type damageResult struct {
	Damages  int
	Refused  int // snapd did not start, and said why
	Reported int // snapd started and reported the damage
	Harmless int // every answer was right, and snapd reported nothing
	Salvaged int // of the refused ones, started after snapd salvage
	Repaired int // without faults after fsck --repair
	Lost     int // with faults after fsck --repair, which are reported and stop garbage collection
}

// damages damages the metadata of a stopped snapd n times, each time starting from the
// same intact state, in the ways of faulty memory, disks and operators. Each time it
// checks that snapd refuses to start or gives only right answers, that it deletes no
// blob, that a message names the metadata, and that after a repair snapd serves
// everything that it served before.
func damages(ctx context.Context, tb testing.TB, binary string, seed uint64, n int) (res damageResult, err error) {
	d, err := newDamager(ctx, tb, binary)
	if err != nil {
		return res, err
	}
	for i := range n {
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		what, err := d.once(ctx, rng, &res)
		d.s.kill()
		if err != nil {
			return res, fmt.Errorf("damage %d of seed %d (%s): %w\n%s", i, seed, what, err, d.s.log.tail())
		}
		res.Damages++
	}
	return res, nil
}

// damager has an intact data directory, and damages copies of its metadata.
type damager struct {
	s     *server
	sound []byte            // meta.db
	mark  []byte            // the installation mark
	pages map[string]string // what snapd serves, by path
	blobs int
}

func newDamager(ctx context.Context, tb testing.TB, binary string) (_ *damager, err error) {
	tmp := fastDir(tb)
	data := filepath.Join(tmp, "data")
	u := newUpstream(tb, time.Now().UTC().Truncate(time.Second).Add(-24*time.Hour))
	s, err := newServer(binary, tmp, data, u.mirrors(0), `reserve = "0"`+"\n"+`quarantine_time = "1s"`+"\n"+`gc_interval = ""`+"\n"+`scrub_interval = ""`)
	if err != nil {
		return nil, err
	}
	d := &damager{s: s, pages: map[string]string{}}
	defer s.kill()
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	for range 3 {
		u.upgrade(packageNames[0])
		if _, err := s.sync(ctx, "debian", "lazy"); err != nil {
			return nil, err
		}
	}
	for _, err := range []error{
		s.call(ctx, "freeze", api.FreezeRequest{Name: "4.0", Mirrors: []string{"debian"}, Packages: packageNames[:2]}, nil),
		s.call(ctx, "freeze", api.FreezeRequest{Name: "whole", Mirrors: []string{"debian"}}, nil),
		s.call(ctx, "record/start", api.RecordStart{Name: "build"}, nil),
	} {
		if err != nil {
			return nil, err
		}
	}
	deb := u.Default().PathOf(packageNames[0])
	for _, p := range []string{
		"/record/build/lazy/" + deb, "/frozen/4.0/debian/" + deb, "/frozen/4.0/debian/dists/stable/InRelease", "/frozen/4.0/manifest.json",
		"/frozen/whole/debian/dists/stable/InRelease", "/frozen/whole/debian/" + deb, "/archive/debian/latest/dists/stable/InRelease",
		"/archive/debian/latest/" + deb, "/record/build/debian/dists/stable/InRelease",
	} {
		status, body := d.get(ctx, p)
		if status != http.StatusOK {
			return nil, fmt.Errorf("%s: status %d", p, status)
		}
		d.pages[p] = body
	}
	if err := s.stop(); err != nil {
		return nil, err
	}
	if d.mark, err = os.ReadFile(filepath.Join(data, "installation")); err != nil {
		return nil, err
	}
	if d.sound, err = os.ReadFile(filepath.Join(data, "meta.db")); err != nil {
		return nil, err
	}
	// Cut off the unused end of the file, where damage is harmless.
	used := uint64(0)
	for meta := range 2 {
		used = max(used, binary64(d.sound, meta*pageSize+16+40)*pageSize)
	}
	d.sound = d.sound[:used]
	d.blobs, err = countBlobs(data)
	return d, err
}

const pageSize = 4096

func binary64(b []byte, at int) uint64 { return binary.NativeEndian.Uint64(b[at:]) }

// get requests a path from the server. The status is 0 if the answer is incomplete.
func (d *damager) get(ctx context.Context, path string) (status int, body string) {
	b, err := httpGet(ctx, "http://"+d.s.listen+path)
	if e := (*statusError)(nil); errors.As(err, &e) {
		return e.status, ""
	} else if err != nil {
		return 0, ""
	}
	return http.StatusOK, string(b)
}

func countBlobs(data string) (n int, err error) {
	err = filepath.WalkDir(filepath.Join(data, "blobs"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return err
	})
	return n, err
}

// spoil returns damaged metadata, and describes the damage.
func (d *damager) spoil(rng *rand.Rand) (data []byte, what string) {
	data = append([]byte(nil), d.sound...)
	at := rng.IntN(len(data))
	page := at / pageSize * pageSize
	switch rng.IntN(9) {
	case 0:
		data[at] ^= 1 << rng.IntN(8)
		return data, fmt.Sprintf("bit of byte %d flipped", at)
	case 1:
		n := min(1+rng.IntN(64), len(data)-at)
		for i := range n {
			data[at+i] = byte(rng.Uint32())
		}
		return data, fmt.Sprintf("%d bytes from %d on overwritten", n, at)
	case 2:
		clear(data[page : page+pageSize])
		return data, fmt.Sprintf("page %d zeroed", page/pageSize)
	case 3:
		other := rng.IntN(len(data)/pageSize) * pageSize
		copy(data[page:page+pageSize], data[other:other+pageSize])
		return data, fmt.Sprintf("page %d overwritten by page %d", page/pageSize, other/pageSize)
	case 4:
		return data[:at], fmt.Sprintf("cut to %d bytes", at)
	case 5:
		head := page + rng.IntN(64)
		data[head] ^= 1 << rng.IntN(8)
		return data, fmt.Sprintf("bit of byte %d flipped, in the head of page %d", head, page/pageSize)
	case 6:
		clear(data[page+512 : page+1024])
		return data, fmt.Sprintf("second sector of page %d zeroed", page/pageSize)
	case 7:
		// A page's keys and values are after its elements.
		at = page + pageSize/2 + rng.IntN(pageSize/2)
		data[at] ^= 1 << rng.IntN(8)
		return data, fmt.Sprintf("bit of byte %d flipped, in the values of page %d", at, page/pageSize)
	default:
		if rng.IntN(4) == 0 {
			return nil, "metadata removed"
		}
		return data[:0], "metadata emptied"
	}
}

// once damages the metadata once and checks the outcome.
func (d *damager) once(ctx context.Context, rng *rand.Rand, res *damageResult) (what string, err error) {
	meta := filepath.Join(d.s.data, "meta.db")
	if err := d.reset(meta); err != nil {
		return "", err
	}
	data, what := d.spoil(rng)
	if data == nil {
		err = os.Remove(meta)
	} else {
		err = os.WriteFile(meta, data, 0o600)
	}
	if err != nil {
		return what, err
	}
	if err := d.s.start(ctx); err != nil {
		if !strings.Contains(err.Error(), "snapd: error:") || !strings.Contains(err.Error(), "meta.db") || strings.Contains(err.Error(), "panic") {
			return what, fmt.Errorf("the message does not say what is wrong: %w", err)
		}
		res.Refused++
		if err := d.kept(); err != nil || len(data) == 0 {
			return what, err
		}
		out, err := exec.CommandContext(ctx, d.s.binary, "--config", filepath.Join(d.s.dir, "c.toml"), "salvage").CombinedOutput()
		if err != nil {
			if strings.Contains(string(out), "snapd: error:") {
				return what, d.kept() // there was nothing to salvage
			}
			return what, fmt.Errorf("salvage: %w\n%s", err, out)
		}
		if err := d.s.start(ctx); err != nil {
			return what, fmt.Errorf("start after the salvage: %w", err)
		}
		res.Salvaged++
	}
	return what, d.judge(ctx, res)
}

// reset restores the intact data directory, with the metadata in meta.
func (d *damager) reset(meta string) error {
	old, err := filepath.Glob(meta + ".damaged-*")
	if err != nil {
		return err
	}
	reports, err := filepath.Glob(meta + ".salvaged-*")
	if err != nil {
		return err
	}
	for _, f := range append(old, reports...) {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(d.s.data, "installation"), d.mark, 0o600),
		os.WriteFile(meta, d.sound, 0o600))
}

// kept returns an error if a blob has been deleted.
func (d *damager) kept() error {
	n, err := countBlobs(d.s.data)
	if err == nil && n != d.blobs {
		err = fmt.Errorf("only %d of %d blobs are left", n, d.blobs)
	}
	return err
}

// judge checks a snapd that has started on damaged metadata.
func (d *damager) judge(ctx context.Context, res *damageResult) error {
	before := d.wrong(ctx, false)
	if len(before) > 0 {
		return fmt.Errorf("wrong answers: %v", before)
	}
	var status api.Status
	if err := d.s.call(ctx, "status", api.Empty{}, &status); err != nil {
		return err
	}
	var gc api.GCResult
	gcErr := d.s.call(ctx, "gc", api.GCRequest{}, &gc)
	if err := d.kept(); err != nil {
		return fmt.Errorf("after gc: %w", err)
	}
	var fsck api.FsckResult
	if err := d.s.call(ctx, "fsck", api.FsckRequest{}, &fsck); err != nil {
		return fmt.Errorf("fsck: %w", err)
	}
	if len(fsck.Faults) == 0 {
		if gcErr != nil {
			return fmt.Errorf("fsck finds no fault, but gc: %w", gcErr)
		}
		res.Harmless++
		if missing := d.wrong(ctx, true); len(missing) > 0 {
			return fmt.Errorf("fsck finds no fault, but: %v", missing)
		}
		return d.kept()
	}
	if gcErr == nil {
		return fmt.Errorf("gc ran on damaged metadata: %+v", fsck.Faults)
	}
	res.Reported++
	if err := d.s.call(ctx, "fsck", api.FsckRequest{Repair: true}, &fsck); err != nil {
		return fmt.Errorf("fsck --repair: %w", err)
	}
	if len(fsck.Faults) > 0 {
		res.Lost++
		if err := d.s.call(ctx, "gc", api.GCRequest{}, &gc); err == nil {
			return errors.New("gc ran although the repair left faults")
		}
		return d.kept()
	}
	res.Repaired++
	if err := d.s.call(ctx, "gc", api.GCRequest{}, &gc); err != nil {
		return fmt.Errorf("gc after the repair: %w", err)
	}
	if missing := d.wrong(ctx, true); len(missing) > 0 {
		return fmt.Errorf("after the repair: %v", missing)
	}
	if _, err := d.s.proveAll(ctx); err != nil {
		return fmt.Errorf("after the repair: %w", err)
	}
	return d.kept()
}

// wrong lists the paths that snapd answers wrongly: with different bytes or as not found.
// With whole it also lists those for which the answer is incomplete or an error.
func (d *damager) wrong(ctx context.Context, whole bool) (out []string) {
	for p, want := range d.pages {
		status, body := d.get(ctx, p)
		switch {
		case status == http.StatusOK && body != want:
			out = append(out, p+": other bytes")
		case status == http.StatusNotFound || status == http.StatusGone || whole && status != http.StatusOK:
			out = append(out, fmt.Sprintf("%s: status %d", p, status))
		}
	}
	return out
}
