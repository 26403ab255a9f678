package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/sign"
)

func verifyVerb() *verb {
	return &verb{
		name: "verify", args: "REF|DIR", min: 1, max: 1,
		usage: "prove that a snapshot, or an exported directory, is what was signed",
		about: `Checks, with no network, this server's signature, every blob's digest, and for
every package the chain from its stanza over the index and the Release to
the distribution's signature. It prints what it relied on; --upstream-key pins
the keys that the distribution's signatures must be by.

An argument that is a directory is checked right here, with no server.`,
		examples: []string{
			"snapctl verify 4.1 --deep",
			"snapctl verify /media/usb/4.1 --key release.asc --upstream-key /usr/share/keyrings/debian-archive-keyring.gpg",
		},
		options: []option{
			{name: "deep", usage: "read and hash every file"},
			{name: "upstream-key", value: "FILE", many: true, usage: "the distribution's signatures must be by a key in this file, .gpg or .asc, which may hold several"},
			{name: "key", value: "FILE", many: true, usage: "the frozen snapshot must be signed by a key in this file, .gpg or .asc, which may hold several"},
		},
		result: new(api.VerifyResult),
		long:   true,
		reads:  true,
		run:    runVerify,
	}
}

func runVerify(ctx context.Context, c *call) error {
	what := c.arg(0)
	req := api.VerifyRequest{Ref: what, Deep: c.on("deep")}
	var err error
	if req.UpstreamKeys, err = c.keyFiles("upstream-key"); err != nil {
		return err
	}
	if req.Keys, err = c.keyFiles("key"); err != nil {
		return err
	}
	var r *api.VerifyResult
	if isDir(what) {
		r, err = verifyDir(ctx, what, req, c.ui.progress)
		c.ui.endProgress()
	} else {
		if err := c.checkRef(what); err != nil {
			return err
		}
		r = new(api.VerifyResult)
		err = c.ask(ctx, "verify", req, r)
	}
	if err != nil {
		return err
	}
	show(c.ui, r, c.ui.verified)
	hint := "look for damaged blobs with: snapctl fsck"
	switch {
	case len(req.UpstreamKeys)+len(req.Keys) > 0:
		hint = "if only signatures do not hold, other keys made them than those given: see which with: snapctl verify " + shellWord(what)
	case isDir(what):
		hint = "copy or export the directory again: snapctl export REF DIR"
	}
	if r.Exit != api.ExitOK {
		if err := c.ui.flush(); err != nil {
			return err
		}
		c.ui.failure(fmt.Sprintf("verify %s: %s", r.Ref, count(len(r.Faults), "thing does not hold", "things do not hold")), hint)
	}
	return exitCode(r.Exit)
}

// isDir tells an exported directory from a REF: REFs have no slashes, and a
// directory that is there is meant.
func isDir(s string) bool {
	if strings.Contains(s, "/") || s == "." || s == ".." {
		return true
	}
	st, err := os.Stat(s)
	return err == nil && st.IsDir()
}

// verifyDir checks an exported directory with no server.
func verifyDir(ctx context.Context, dir string, req api.VerifyRequest, progress func(api.Progress)) (*api.VerifyResult, error) {
	p := &acquire.Progress{}
	o := proof.Options{Deep: req.Deep, Formats: []repo.Format{deb.Format{}, rpm.Format{}}, Progress: p}
	var err error
	if o.Upstream, err = parseKeyrings(req.UpstreamKeys); err != nil {
		return nil, err
	}
	if o.Ours, err = parseKeyrings(req.Keys); err != nil {
		return nil, err
	}
	stop := watch(p, dir, progress)
	defer stop()
	return proof.VerifyDir(ctx, dir, o)
}

// watch tells progress how far p is, until stop is called.
func watch(p *acquire.Progress, task string, progress func(api.Progress)) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				progress(api.Progress{
					Task: task, Phase: orWord(p.Phase(), "verifying"),
					Files: p.Files.Load(), FilesTotal: p.FilesTotal.Load(), Bytes: p.Bytes.Load(), BytesTotal: p.BytesTotal.Load(),
				})
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

func parseKeyrings(armored []string) (*sign.Keyring, error) {
	var rings []*sign.Keyring
	for _, a := range armored {
		k, err := sign.ParseKeyring([]byte(a))
		if err != nil {
			return nil, err
		}
		rings = append(rings, k)
	}
	if len(rings) == 0 {
		return nil, nil
	}
	return sign.Merge(rings...), nil
}

// keyFiles reads the keyring files of an option as armored certificates.
func (c *call) keyFiles(name string) ([]string, error) {
	var out []string
	for _, file := range c.list(name) {
		k, err := sign.LoadKeyring(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("--%s %s: %w: there is no such file", name, file, errNoCertificate)
		case errors.Is(err, sign.ErrMalformed):
			return nil, fmt.Errorf("--%s %s: %w: %w", name, file, errNoCertificate, err)
		case err != nil:
			return nil, fmt.Errorf("--%s: %w", name, err)
		}
		out = append(out, string(k.ExportArmored()))
	}
	return out, nil
}

func exportVerb() *verb {
	return &verb{
		name: "export", args: "REF DIR", min: 2, max: 2,
		usage: "write a frozen snapshot into a directory that any file server can serve",
		about: `The directory must be new or empty, and snapd must be able to write it. apt and
dnf can use it over any file server; import takes it into another snapd; verify
checks it with no server at all.`,
		examples: []string{"snapctl export 4.1 /media/usb/4.1"},
		result:   new(api.TransferResult),
		long:     true,
		run: func(ctx context.Context, c *call) error {
			if err := c.checkRef(c.arg(0)); err != nil {
				return err
			}
			dir, err := absolute(c.arg(1))
			if err != nil {
				return err
			}
			var r api.TransferResult
			if err := c.ask(ctx, "export", api.ExportRequest{Ref: c.arg(0), Dir: dir}, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.transferred("exported"))
			return nil
		},
	}
}

func importVerb() *verb {
	return &verb{
		name: "import", args: "DIR", min: 1, max: 1,
		usage: "take an exported directory in, after checking all of it",
		examples: []string{
			"snapctl import /media/usb/4.1 --key release.asc",
		},
		options: []option{
			{name: "key", value: "FILE", many: true, usage: "trust the keys in this file, .gpg or .asc, for the frozen snapshot's signature"},
		},
		result: new(api.TransferResult),
		long:   true,
		reads:  true,
		run: func(ctx context.Context, c *call) error {
			dir, err := absolute(c.arg(0))
			if err != nil {
				return err
			}
			req := api.ImportRequest{Dir: dir}
			if req.Keys, err = c.keyFiles("key"); err != nil {
				return err
			}
			var r api.TransferResult
			if err := c.ask(ctx, "import", req, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.transferred("imported"))
			return nil
		},
	}
}

func sbomVerb() *verb {
	return &verb{
		name: "sbom", args: "REF", min: 1, max: 1,
		usage: "print a bill of materials, SPDX 2.3 or CycloneDX 1.5 JSON",
		examples: []string{
			"snapctl sbom 4.1 > 4.1.spdx.json",
			"snapctl sbom 4.1 --format cyclonedx > 4.1.cdx.json",
		},
		options: []option{
			{name: "format", value: "FORMAT", choices: []string{"spdx", "cyclonedx"}, usage: "spdx (default) or cyclonedx"},
		},
		result: new(api.SBOMResult),
		run: func(ctx context.Context, c *call) error {
			if err := c.checkRef(c.arg(0)); err != nil {
				return err
			}
			var r api.SBOMResult
			if err := c.ask(ctx, "sbom", api.SBOMRequest{Ref: c.arg(0), Format: c.str("format")}, &r); err != nil {
				return err
			}
			show(c.ui, &r, func(r *api.SBOMResult) { c.ui.text(r.Text) })
			return nil
		},
	}
}
