package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.org/snapd/client"
	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/freeze/stream"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog"
)

func verifyVerb() *verb {
	return &verb{
		name: "verify", args: "REF|DIR|URL", min: 1, max: 1,
		usage: "verify a snapshot, a freeze or an export",
		about: `verify checks this server's signature and, for every package, the chain from its
stanza through the index and the Release file to the distribution's signature.
It does so without network access. It prints the upstream signatures that the
result rests on; --upstream-key pins the keys that must have made them.

Without --deep it reads and hashes indices, signatures and statements. Package
files are not read: each must exist with the recorded size and, on a server, the
recorded digest. --deep reads and hashes every file. An export at a URL (see
snapctl import) is first downloaded to a temporary directory ($TMPDIR).

A directory is checked by snapctl itself, without a server.

--builders and --threshold require at least N of the builders in a file to
confirm each image of a freeze; verify names builders that built another image.
--rebuilders and --threshold require at least N of the rebuilders in a file to
have reproduced each package, according to the attestations that snapctl attest
fetch keeps beside the freeze; verify lists packages that fewer have reproduced.`,
		examples: []string{
			"snapctl verify 4.1 --deep",
			"snapctl verify 4.1 --builders builders.txt --threshold 2",
			"snapctl verify 4.1 --rebuilders rebuilders.txt --threshold 1",
			"snapctl verify /media/usb/4.1 --key release.asc --upstream-key /usr/share/keyrings/debian-archive-keyring.gpg",
		},
		options: slices.Concat([]option{
			{name: "deep", usage: "also read and hash every file"},
			{name: "upstream-key", value: "FILE", many: true, usage: "require the distribution's signatures to be by a key in this file (.gpg or .asc, one or more keys)"},
			{name: "key", value: "FILE", many: true, usage: "require the freeze to be signed by a key in this file (.gpg or .asc, one or more keys)"},
		}, policyOptions, builderOptions, []option{rebuilderOption}),
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
	if req.LogPolicy, err = c.policy(); err != nil {
		return err
	}
	if req.Builders, _, req.Threshold, err = c.threshold(); err != nil {
		return err
	}
	if err := c.rebuilderThreshold(&req); err != nil {
		return err
	}
	var r *api.VerifyResult
	shown := what
	if isURL(what) {
		shown = remote.NewURL(what).String() // its query may be a secret
	}
	exported := func(dir string) (err error) {
		r, err = verifyDir(ctx, dir, shown, req, c.ui.progress)
		c.ui.endProgress()
		if err == nil && r.Log == nil && r.Exit == api.ExitOK {
			r.Notes = append(r.Notes, "the export has no proof of a transparency log (--policy and --log-key insist on one)")
		}
		return err
	}
	if isURL(what) {
		err = c.downloaded(ctx, what, exported)
	} else if isDir(what) {
		err = exported(what)
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
	if err := c.pinLog(r); err != nil {
		return err
	}
	show(c.ui, r, c.ui.verified)
	hint := "look for damaged blobs with: snapctl fsck"
	unconfirmed := func(f api.VerifyFault) bool { return strings.HasPrefix(f.Object, "image") }
	unreproduced := func(f api.VerifyFault) bool { return f.Object == proof.RebuildObject }
	switch {
	case r.Rebuilders != nil && len(r.Faults) > 0 && !slices.ContainsFunc(r.Faults, func(f api.VerifyFault) bool { return !unreproduced(f) }):
		hint = "ask the rebuilders again with: snapctl attest fetch " + shellWord(r.Ref) + " --rebuilders FILE; a line \"except PACKAGE\" of the file names one that need not be reproduced"
	case r.Builders != nil && !slices.ContainsFunc(r.Faults, func(f api.VerifyFault) bool { return !unconfirmed(f) }):
		hint = "builders attest an image with: snapctl rebuild " + shellWord(r.Ref) + " --attest; keep what others attest with: snapctl attest import FILE"
	case len(req.UpstreamKeys)+len(req.Keys) > 0:
		hint = "if only signatures fail, they were made by other keys than the given ones; see which with: snapctl verify " + shellWord(shown)
	case isURL(what):
		hint = "export it again: snapctl export REF DIR|s3://..."
	case isDir(what):
		hint = "copy or export the directory again: snapctl export REF DIR"
	}
	if r.Exit != api.ExitOK {
		if err := c.ui.flush(); err != nil {
			return err
		}
		c.ui.failure(fmt.Sprintf("verify %s: %s", r.Ref, count(len(r.Faults), "check failed", "checks failed")), hint)
	}
	return exitCode(r.Exit)
}

// isDir reports whether an argument is an exported directory rather than a REF, which
// has no slashes. An existing directory takes precedence.
func isDir(s string) bool {
	if strings.Contains(s, "/") || s == "." || s == ".." {
		return true
	}
	st, err := os.Stat(s)
	return err == nil && st.IsDir()
}

// verifyDir checks an exported directory without a server; name is its name in messages.
func verifyDir(ctx context.Context, dir, name string, req api.VerifyRequest, progress func(api.Progress)) (*api.VerifyResult, error) {
	p := &acquire.Progress{}
	o := proof.Options{Deep: req.Deep, Formats: repo.ByType[proof.Format](deb.Format{}, rpm.Format{}), Progress: p}
	var err error
	if o.Upstream, err = parseKeyrings(req.UpstreamKeys); err != nil {
		return nil, err
	}
	if o.Ours, err = parseKeyrings(req.Keys); err != nil {
		return nil, err
	}
	if req.LogPolicy != "" {
		if o.Log, err = tlog.ParsePolicy([]byte(req.LogPolicy)); err != nil {
			return nil, err
		}
	}
	if err := o.SetBuilders(&req); err != nil {
		return nil, err
	}
	stop := watch(p, name, progress)
	defer stop()
	t, err := tree.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	found, err := proof.Check(ctx, t, name, o)
	if err != nil {
		return nil, err
	}
	return found.Result, nil
}

// watch reports the progress of p until stop is called.
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
			return nil, fmt.Errorf("--%s %s: %w: no such file", name, file, errNoCertificate)
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
		name: "export", args: "REF DIR|-|s3://...", min: 2, max: 2,
		usage: "write a freeze to a directory that any file server can serve",
		about: `The directory must be new or empty. Without --server, snapd writes it, and needs
permission to do so; with --server, snapctl writes it on this machine. "-"
writes a tar stream of the same files to standard output. apt and dnf can use
the directory through any file server, snapctl import adds it to another snapd,
and snapctl verify checks it without a server.

s3://BUCKET/PREFIX?endpoint=URL&region=R writes the same files to a bucket, for
a web server or CDN in front of it. There must be no other export under the
prefix; the same command repeats an interrupted export. The credentials are
those of snapd: the credentials_file in its configuration, or its AWS
environment.`,
		examples: []string{"snapctl export 4.1 /media/usb/4.1", "snapctl export 4.1 - > 4.1.tar", "snapctl export 4.1 's3://releases/4.1?endpoint=https://s3.example.org'"},
		result:   new(api.TransferResult),
		long:     true,
		run:      runExport,
	}
}

func runExport(ctx context.Context, c *call) error {
	ref, dir := c.arg(0), c.arg(1)
	if err := c.checkRef(ref); err != nil {
		return err
	}
	if dir == "-" {
		return c.asking(func(cl *client.Client, progress func(api.Progress)) error {
			return cl.ReceiveStream(ctx, "export/tar", api.ExportTar{Ref: ref}, c.ui.out, progress)
		})
	}
	server, err := c.server()
	if err != nil {
		return err
	}
	bucket := strings.HasPrefix(dir, "s3://")
	if !bucket {
		if dir, err = absolute(dir); err != nil {
			return err
		}
	}
	r := &api.TransferResult{}
	if server != "" && !bucket {
		r, err = c.exportHere(ctx, ref, dir)
	} else {
		err = c.ask(ctx, "export", api.ExportRequest{Ref: ref, Dir: dir}, r)
	}
	if err != nil {
		return err
	}
	show(c.ui, r, c.ui.transferred("exported"))
	return nil
}

// exportHere writes an export of a remote server to a directory, which gets its name
// only when it is complete.
func (c *call) exportHere(ctx context.Context, ref, dir string) (*api.TransferResult, error) {
	entries, err := os.ReadDir(dir)
	exists := err == nil
	if len(entries) > 0 {
		return nil, c.usagef("%s is not empty", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".snapctl-export-*")
	if err != nil {
		return nil, err
	}
	tmp := filepath.Join(work, "export")
	defer func() {
		os.RemoveAll(tmp)
		os.Remove(work)
	}()
	if exists {
		if err := c.replaceable(dir, work); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := stream.Unpack(ctx, r, tmp, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // padding, or the error that ended the stream
		}
		r.CloseWithError(err)
		unpacked <- err
	}()
	err = c.asking(func(cl *client.Client, progress func(api.Progress)) error {
		return cl.ReceiveStream(ctx, "export/tar", api.ExportTar{Ref: ref}, w, progress)
	})
	w.CloseWithError(err)
	if uerr := <-unpacked; err == nil {
		err = uerr
	}
	if err != nil {
		return nil, err
	}
	res := &api.TransferResult{New: true}
	if err := filepath.WalkDir(tmp, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			res.Files++
			res.Bytes += st.Size()
		}
		return err
	}); err != nil {
		return nil, err
	}
	data, err := regfile.Read(filepath.Join(tmp, freeze.ManifestFile), maxFrozen)
	if err != nil {
		return nil, fmt.Errorf("the server sent an incomplete export: %w", err)
	}
	var m struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("the server sent no export: %s: %w", freeze.ManifestFile, err)
	}
	res.Name = m.Name
	if err := durable.SyncTree(tmp); err != nil {
		return nil, err
	}
	_ = os.Remove(dir) // the empty one
	if err := os.Rename(tmp, dir); err != nil {
		return nil, err
	}
	return res, durable.SyncDir(filepath.Dir(dir))
}

// replaceable returns an error if an empty directory cannot be renamed, like a mount
// point. It tries by moving the directory to work and back.
func (c *call) replaceable(dir, work string) error {
	aside := filepath.Join(work, "aside")
	err := os.Rename(dir, aside)
	switch {
	case err == nil:
		return os.Rename(aside, dir)
	case errors.Is(err, syscall.EBUSY):
		return c.usagef("%s is a mount point, which an export cannot replace: name a directory below it", dir)
	case errors.Is(err, syscall.EXDEV):
		return nil // overlayfs cannot move a directory of a lower layer, but can remove it
	}
	return err
}

// maxFrozen bounds a freeze manifest, in bytes.
const maxFrozen = 1 << 30

func importVerb() *verb {
	return &verb{
		name: "import", args: "DIR|-|URL", min: 1, max: 1,
		usage: "import an exported directory after verifying all of it",
		about: `Without --server, snapd reads the directory; with --server, snapctl sends it.
"-" sends a tar stream of its files from standard input. A URL is that of an
export on a file server or in a bucket: snapctl downloads the files in its
SHA256SUMS to a temporary directory ($TMPDIR), and then sends them. If the URL
ends in ".tar", snapctl sends the tar stream as it arrives.`,
		examples: []string{
			"snapctl import /media/usb/4.1 --key release.asc",
			"snapctl import -",
			"snapctl import https://mirror.example.org/releases/4.1",
		},
		options: []option{
			{name: "key", value: "FILE", many: true, usage: "require the freeze to be signed by a key in this file (.gpg or .asc)"},
		},
		result: new(api.TransferResult),
		long:   true,
		reads:  true,
		run: func(ctx context.Context, c *call) error {
			keys, err := c.keyFiles("key")
			if err != nil {
				return err
			}
			var r api.TransferResult
			if err := c.importFrom(ctx, c.arg(0), keys, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.transferred("imported"))
			return nil
		},
	}
}

// importFrom imports an export from a directory, a URL, or standard input ("-").
func (c *call) importFrom(ctx context.Context, from string, keys []string, r *api.TransferResult) error {
	send := func(write func(context.Context, io.Writer) error) error {
		return c.asking(func(cl *client.Client, progress func(api.Progress)) error {
			return cl.SendStream(ctx, "import/tar", api.ImportTar{Keys: keys}, write, r, progress)
		})
	}
	sendDir := func(dir string) error {
		return send(func(ctx context.Context, w io.Writer) error { return stream.Pack(ctx, dir, w) })
	}
	switch {
	case from == "-":
		return send(func(ctx context.Context, w io.Writer) error {
			_, err := io.Copy(w, regfile.WithContext(ctx, c.p.stdin))
			return err
		})
	case isURL(from):
		u, err := c.exportURL(from)
		if err != nil {
			return err
		}
		// Before a long download, check that the server answers and accepts the token.
		if err := c.ask(ctx, "mirror/list", api.Empty{}, nil); err != nil {
			return err
		}
		if !isTar(u) {
			return c.downloaded(ctx, from, sendDir)
		}
		return send(func(ctx context.Context, w io.Writer) error {
			cl := fetch.New(fetch.Config{})
			defer cl.Close()
			in, err := openTar(ctx, cl, u)
			if err != nil {
				return err
			}
			defer in.Close()
			_, err = io.Copy(w, in)
			return err
		})
	}
	dir, err := absolute(from)
	if err != nil {
		return err
	}
	server, err := c.server()
	if err != nil {
		return err
	}
	if server == "" {
		return c.ask(ctx, "import", api.ImportRequest{Dir: dir, Keys: keys}, r)
	}
	return sendDir(dir)
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
