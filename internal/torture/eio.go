package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/torture/cutfs"
)

// inputOutput makes operations on the disk of the real snapd fail with EIO. In each
// phase, each kind of operation fails at the occurrences listed in at, once or from then
// on. Long because the order of its steps is the test.
func inputOutput(ctx context.Context, tb testing.TB, binary string, at []int) (res fullResult, err error) {
	tmp := fastDir(tb)
	mnt := filepath.Join(tmp, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return res, err
	}
	fs, err := cutfs.Mount(mnt)
	if err != nil {
		res.Skip = err.Error()
		return res, nil
	}
	defer fs.Unmount()
	u := newUpstream(tb, time.Now().UTC().Truncate(time.Second).Add(-24*time.Hour))
	exported, err := exportedFreeze(ctx, u, tmp)
	if err != nil {
		return res, err
	}
	s, err := newServer(binary, tmp, filepath.Join(mnt, "data"), u.mirrors(0), `reserve = "0"`+"\n"+`quarantine_time = "1s"`)
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
	if err := s.call(ctx, "freeze", api.FreezeRequest{Name: "keeper", Mirrors: []string{"debian"}}, nil); err != nil {
		return res, err
	}
	next := phases(ctx, s, u, exported)
	for _, op := range []string{"read", "write", "fsync", "create", "rename"} {
		for i, nth := range at {
			u.upgrade(packageNames[res.Cases%len(packageNames)])
			for _, p := range next() {
				if err := p.anew(ctx, s); err != nil {
					return res, err
				}
				if op == "read" {
					// Restart, so that the page cache is empty.
					if err := s.stop(); err != nil {
						return res, err
					}
					if err := s.start(ctx); err != nil {
						return res, err
					}
				}
				forever := i%2 == 1
				row := fmt.Sprintf("%s with EIO from %s %d (from then on: %v)", p.name, op, nth, forever)
				n := 0
				fs.SetFault(func(o string) syscall.Errno {
					if o != op {
						return 0
					}
					if n++; n == nth || forever && n > nth {
						return syscall.EIO
					}
					return 0
				})
				res.Cases++
				err := p.do()
				switch {
				case err == nil:
					res.Succeeded++
				case !s.alive():
					res.Died++
				default:
					res.Refused++
				}
				s.kill()
				fs.SetFault(nil)
				if err := s.start(ctx); err != nil {
					return res, fmt.Errorf("%s: start again (after %v): %w", row, err, err)
				}
				if _, err := s.proveAll(ctx); err != nil {
					return res, fmt.Errorf("%s: %w", row, err)
				}
				if err := p.do(); err != nil {
					return res, fmt.Errorf("%s: repeated: %w", row, err)
				}
			}
		}
	}
	if _, err := s.proveAll(ctx); err != nil {
		return res, err
	}
	return res, s.stop()
}
