package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
)

// fullResult counts phases on a file system that is nearly full or that fails.
type fullResult struct {
	Cases     int
	Refused   int // the operation failed as expected
	Succeeded int // the space was just enough, or the fault did no harm
	Died      int // snapd exited and recovered at its next start
	Skip      string
}

// phase is an operation of the real snapd during which the disk fails.
type phase struct {
	name string
	do   func() error
}

// anew removes the result of a phase, so that doing it again writes.
func (p phase) anew(ctx context.Context, s *server) error {
	if p.name != "import" || s.call(ctx, "rm", api.RefRequest{Ref: "imported"}, nil) != nil {
		return nil
	}
	return s.call(ctx, "gc", api.GCRequest{}, nil)
}

// exportedFreeze exports a freeze from another system and returns the directory.
func exportedFreeze(ctx context.Context, u *upstream, tmp string) (dir string, err error) {
	table := &faultTable{u: u, tmp: tmp}
	if table.signer, err = throwawaySigner(); err != nil {
		return "", err
	}
	dir = filepath.Join(tmp, "exported")
	return dir, table.export(ctx, dir)
}

// phases returns a function that returns the phases. Each call uses new names, so that
// every phase writes.
func phases(ctx context.Context, s *server, u *upstream, exported string) func() []phase {
	n := 0
	return func() []phase {
		n++
		name := fmt.Sprint("n", n)
		return []phase{
			{"sync", func() error { _, err := s.sync(ctx, "debian", "lazy"); return err }},
			{"freeze", func() error {
				return s.call(ctx, "freeze", api.FreezeRequest{Name: "f" + name, Mirrors: []string{"debian"}, Packages: packageNames[:2]}, nil)
			}},
			{"record", func() error {
				err := s.call(ctx, "record/start", api.RecordStart{Name: "r" + name}, nil)
				if e := new(api.Error); err != nil && !(errors.As(err, &e) && e.Code == api.CodeExists) {
					return err
				}
				_, err = httpGet(ctx, "http://"+s.listen+"/record/r"+name+"/lazy/"+u.Default().PathOf("gamma"))
				return err
			}},
			{"import", func() error {
				return s.call(ctx, "import", api.ImportRequest{Dir: exported}, nil)
			}},
		}
	}
}

// fills does each phase on a small file system with only so many KiB free, for each
// number in left. Long because the order of its steps is the test.
func fills(ctx context.Context, tb testing.TB, binary string, left []int) (res fullResult, err error) {
	tmp := fastDir(tb)
	data := filepath.Join(tmp, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return res, err
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=48m,mode=0700"); err != nil {
		res.Skip = "mount tmpfs: " + err.Error()
		return res, nil
	}
	defer syscall.Unmount(data, syscall.MNT_DETACH)
	u := newUpstream(tb, time.Now().UTC().Truncate(time.Second).Add(-24*time.Hour))
	exported, err := exportedFreeze(ctx, u, tmp)
	if err != nil {
		return res, err
	}
	s, err := newServer(binary, tmp, data, u.mirrors(0), `reserve = "0"`+"\n"+`quarantine_time = "1s"`)
	if err != nil {
		return res, err
	}
	if err := s.start(ctx); err != nil {
		return res, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, s.log.tail())
		}
		s.kill()
	}()
	if _, err := s.sync(ctx, "debian"); err != nil {
		return res, err
	}
	filler := filepath.Join(data, "filler")
	next := phases(ctx, s, u, exported)
	index := "http://" + s.listen + "/archive/debian/latest/dists/stable/InRelease"
	for _, kib := range left {
		u.upgrade(packageNames[res.Cases%len(packageNames)], packageNames[2])
		for _, p := range next() {
			if err := p.anew(ctx, s); err != nil {
				return res, err
			}
			row := fmt.Sprintf("%s with %d KiB left", p.name, kib)
			if err := fill(filler, data, int64(kib)<<10); err != nil {
				return res, err
			}
			res.Cases++
			err := p.do()
			switch {
			case err == nil:
				res.Succeeded++
			case !s.alive():
				res.Died++
			default:
				res.Refused++
				if !strings.Contains(err.Error(), "no space left") && p.name != "record" {
					return res, fmt.Errorf("%s: the error does not say why: %w", row, err)
				}
				if _, err := httpGet(ctx, index); err != nil {
					return res, fmt.Errorf("%s: snapd stopped serving: %w", row, err)
				}
			}
			if err := os.Remove(filler); err != nil {
				return res, err
			}
			s.kill()
			if err := s.start(ctx); err != nil {
				return res, fmt.Errorf("%s: start again: %w", row, err)
			}
			if _, err := s.proveAll(ctx); err != nil {
				return res, fmt.Errorf("%s: %w", row, err)
			}
			if err := p.do(); err != nil {
				return res, fmt.Errorf("%s: repeated with space: %w", row, err)
			}
			if _, err := s.proveAll(ctx); err != nil {
				return res, fmt.Errorf("%s, repeated: %w", row, err)
			}
		}
	}
	return res, s.stop()
}

// fill writes a file until only left bytes of the file system are free.
func fill(file, dir string, left int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	for n := int64(st.Bavail)*st.Bsize - left; n > 0; n -= int64(len(buf)) {
		if _, err := f.Write(buf[:min(n, int64(len(buf)))]); err != nil && !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	return nil
}
