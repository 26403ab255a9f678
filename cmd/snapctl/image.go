package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/compare"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/image"
	"example.org/snapd/internal/regfile"
)

func imageVerb() *verb {
	return &verb{
		name:  "image",
		usage: "build root file systems from freezes, or record them",
		examples: []string{
			"snapctl image build 4.1 --variant minbase --include linux-image-amd64,live-boot",
			"snapctl image list",
		},
		verbs: []*verb{
			{
				name: "add", args: "NAME FILE", min: 2, max: 2,
				usage:    "record an image that was built elsewhere from a freeze",
				examples: []string{"snapctl image add 4.1 filesystem.squashfs", "snapctl image add 4.1 desktop.iso --variant desktop"},
				options:  []option{{name: "variant", value: "V", usage: "name of the image, if the freeze has several"}},
				result:   new(api.Image),
				long:     true,
				run: func(ctx context.Context, c *call) error {
					if err := c.checkName("name", c.arg(0)); err != nil {
						return err
					}
					file, err := absolute(c.arg(1))
					if err != nil {
						return err
					}
					if st, err := os.Stat(file); err != nil {
						return err
					} else if err := regfile.Check(file, st); err != nil {
						return err
					}
					var r api.Image
					if err := c.addImage(ctx, api.ImageAdd{Name: c.arg(0), Variant: c.str("variant")}, file, &r); err != nil {
						return err
					}
					show(c.ui, &r, c.ui.imageAdded)
					return nil
				},
			},
			{
				name: "build", args: "NAME", min: 1, max: 1,
				usage: "build a root file system from a freeze with mmdebstrap",
				about: `build installs packages only from the freeze, without root if the machine allows
it, and with SOURCE_DATE_EPOCH set to the date of the freeze. snapd records the
digest of the image and how it was built; for tar and OCI images as VARIANT-tar
and VARIANT-oci. The image has the distribution's own source lines, a fixed host
name, an empty resolv.conf and machine-id, and nothing that depends on this
machine. An OCI image is one file for podman load, or for skopeo as
oci-archive:FILE. Its reference is the name of the freeze, if that is a valid
reference.`,
				examples: []string{
					"snapctl image build 4.1",
					"snapctl image build 4.1 --variant minbase --include openssh-server,less --output 4.1.squashfs",
					"snapctl image build 4.1 --format oci --output 4.1.oci.tar",
				},
				options: []option{
					{name: "variant", value: "V", usage: "mmdebstrap's variant: essential, apt (default), minbase, buildd, important, standard, ..."},
					{name: "format", value: "F", usage: "squashfs (default), tar, or oci"},
					{name: "include", value: "P[,P...]", many: true, usage: "packages to install in addition to those of the variant"},
					{name: "output", value: "FILE", usage: "also write the image to this file"},
				},
				result: new(api.ImageBuild),
				long:   true,
				run:    runImageBuild,
			},
			{
				name:     "list",
				usage:    "list recorded images",
				examples: []string{"snapctl image list"},
				result:   new(api.ImageList),
				run: func(ctx context.Context, c *call) error {
					var r api.ImageList
					if err := c.ask(ctx, "image/list", api.Empty{}, &r); err != nil {
						return err
					}
					show(c.ui, &r, c.ui.images)
					return nil
				},
			},
		},
	}
}

func rebuildVerb() *verb {
	return &verb{
		name: "rebuild", args: "NAME", min: 1, max: 1,
		usage: "build an image again and compare it with the recorded one",
		about: `The versions of the build tools are compared with the recorded ones first. The
exit code is 0 if the images are identical or every difference is expected;
otherwise it is 4. The differences are explained as by snapctl compare. --attest
signs the result, identical or not, as snapctl attest does, and publishes the
differences on the page of the freeze.`,
		examples: []string{"snapctl rebuild 4.1", "snapctl rebuild 4.1 --variant minbase --output again.squashfs", "snapctl rebuild 4.1 --attest --key builder.pem"},
		options: append([]option{
			{name: "variant", value: "V", usage: "name of the image, if the freeze has several"},
			{name: "output", value: "FILE", usage: "write the new image to this file"},
			{name: "attest", usage: "sign whether the images are identical, and keep the attestation beside the freeze"},
			{name: "key", value: "FILE", usage: "private key for --attest (default: that of the server, which --config names)"},
		}, explainOptions...),
		result: new(api.RebuildResult),
		long:   true,
		run:    runRebuild,
	}
}

// A builder builds images with mmdebstrap, or with a function of a test.
type builder struct {
	architecture func(context.Context) (string, error)
	tools        func(context.Context) (image.Tools, error)
	build        func(context.Context, io.WriterAt, image.Spec, image.Options) error
}

var hostBuilder = builder{image.Architecture, image.FindTools, image.Build}

// installSources asks snapd for the apt sources that install from a freeze's
// Debian mirrors, as deb822 with inline keys.
func (c *call) installSources(ctx context.Context, f *api.Frozen) (string, error) {
	var parts []string
	for _, m := range sortedMirrors(f) {
		if m.Type != "deb" {
			continue
		}
		var r api.SourcesResult
		if err := c.ask(ctx, "sources", api.SourcesRequest{Ref: f.Name, Format: "deb822", Mirror: m.Mirror}, &r); err != nil {
			return "", err
		}
		parts = append(parts, strings.TrimRight(r.Text, "\n")+"\n")
	}
	if len(parts) == 0 {
		return "", fmt.Errorf("build image of %s: %w", f.Name, errNoDebian)
	}
	return strings.Join(parts, "\n"), nil
}

// errNoDebian means that a freeze contains nothing that mmdebstrap could install.
var errNoDebian = errors.New("the freeze has no Debian mirror")

// upstreamLines returns apt source lines with upstream's URLs, for the mirrors of a
// freeze that are configured here.
func (c *call) upstreamLines(ctx context.Context, f *api.Frozen) (string, error) {
	var list []image.Repository
	for _, m := range sortedMirrors(f) {
		if m.Type != "deb" {
			continue
		}
		var d api.MirrorDetail
		err := c.ask(ctx, "mirror/show", api.MirrorRef{Mirror: m.Mirror}, &d)
		if e := (*api.Error)(nil); errors.As(err, &e) && e.Code == api.CodeNotFound {
			// An imported freeze can be installed, but its upstream is unknown.
			c.ui.warning("mirror %s is not configured here: the image's sources.list omits it", m.Mirror)
			continue
		}
		if err != nil {
			return "", fmt.Errorf("find upstream of mirror %s: %w", m.Mirror, err)
		}
		if len(d.URLs) == 0 {
			return "", fmt.Errorf("find upstream of mirror %s: it has no URL", m.Mirror)
		}
		list = append(list, image.Repository{URL: d.URLs[0], Suites: m.Suites, Components: d.Components})
	}
	return image.SourceLines(list), nil
}

func sortedMirrors(f *api.Frozen) []api.FrozenMirror {
	out := slices.Clone(f.Mirrors)
	slices.SortFunc(out, func(a, b api.FrozenMirror) int { return strings.Compare(a.Mirror, b.Mirror) })
	return out
}

// frozen requests a freeze by name.
func (c *call) frozen(ctx context.Context, name string) (*api.Frozen, error) {
	var r api.ShowResult
	if err := c.ask(ctx, "show", api.ShowRequest{Ref: name}, &r); err != nil {
		return nil, err
	}
	if r.Frozen == nil {
		return nil, fmt.Errorf("%s is not a freeze", name)
	}
	return r.Frozen, nil
}

// build writes the image of s to output, or to a temporary file that done removes. The
// file's mode lets snapd read it.
func (c *call) build(ctx context.Context, s image.Spec, name, output string) (file string, done func(), err error) {
	c.boundMemory()
	done = func() {}
	if output == "" {
		dir, err := os.MkdirTemp("", "snapctl-image-")
		if err != nil {
			return "", done, err
		}
		done = func() { os.RemoveAll(dir) }
		output = filepath.Join(dir, "image")
	}
	if file, err = absolute(output); err != nil {
		return "", done, err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".")
	if err != nil {
		done()
		return "", done, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			done()
		}
	}()
	if err := f.Chmod(0o644); err != nil {
		return "", done, err
	}
	err = c.p.builder.build(ctx, f, s, image.Options{Progress: c.ui.packed(name), Log: &buildLog{tell: func(phase string) {
		c.ui.progress(api.Progress{Task: name, Phase: phase})
	}}})
	c.ui.endProgress()
	if err != nil {
		return "", done, err
	}
	if err := f.Sync(); err != nil {
		return "", done, err
	}
	if err := f.Close(); err != nil {
		return "", done, err
	}
	return file, done, os.Rename(f.Name(), file)
}

// A buildLog derives the phases of a build from mmdebstrap's messages.
type buildLog struct {
	tell func(phase string)
	rest []byte // of the current line
}

// buildPhases maps the beginnings of mmdebstrap's messages to phases.
var buildPhases = []struct{ line, phase string }{
	{"I: running apt-get update", "update"},
	{"I: downloading packages", "download"},
	{"I: extracting archives", "extract"},
	{"I: installing", "install"},
	{"I: cleaning", "clean"},
}

func (l *buildLog) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			break
		}
		for _, b := range buildPhases {
			if bytes.HasPrefix(line, []byte(b.line)) {
				l.tell(b.phase)
			}
		}
		l.rest = rest
	}
	if len(l.rest) > 4096 {
		l.rest = nil // no message is that long
	}
	return len(p), nil
}

func runImageBuild(ctx context.Context, c *call) error {
	name := c.arg(0)
	if err := c.checkName("name", name); err != nil {
		return err
	}
	s := image.Spec{Variant: c.str("variant"), Format: c.str("format"), Freeze: name, Include: splitCommas(c.list("include")), Architecture: "amd64"}
	// First make the checks that need no daemon.
	probe := s
	probe.Epoch = c.p.now()
	if err := probe.Check(); err != nil {
		return c.usagef("%v", err)
	}
	var err error
	if s.Architecture, err = c.p.builder.architecture(ctx); err != nil {
		return err
	}
	tools, err := c.p.builder.tools(ctx)
	if err != nil {
		return err
	}
	f, err := c.frozen(ctx, name)
	if err != nil {
		return err
	}
	s.Epoch = f.Date
	if s.Sources, err = c.installSources(ctx, f); err != nil {
		return err
	}
	if s.Upstream, err = c.upstreamLines(ctx, f); err != nil {
		return err
	}
	if err := s.Check(); err != nil {
		return err
	}
	file, done, err := c.build(ctx, s, name, c.str("output"))
	if err != nil {
		return err
	}
	defer done()
	out := &api.ImageBuild{}
	if c.str("output") != "" {
		out.File = file
	}
	if err := c.addImage(ctx, api.ImageAdd{Name: name, Variant: s.ImageName(), How: s.How(tools)}, file, &out.Image); err != nil {
		return err
	}
	show(c.ui, out, func(r *api.ImageBuild) {
		c.ui.imageAdded(&r.Image)
		if r.File != "" {
			c.ui.printf("wrote %s\n", r.File)
		}
	})
	return nil
}

// runRebuild builds an image again. Long because each step depends on the one before.
func runRebuild(ctx context.Context, c *call) error {
	name := c.arg(0)
	if err := c.checkName("name", name); err != nil {
		return err
	}
	o, err := c.compareOptions()
	if err != nil {
		return err
	}
	var key *attest.Key
	if c.on("attest") {
		if key, err = c.attestKey(); err != nil {
			return err
		}
	} else if c.str("key") != "" {
		return c.usagef("--key needs --attest")
	}
	var list api.ImageList
	if err := c.ask(ctx, "image/list", api.Empty{}, &list); err != nil {
		return err
	}
	recorded, err := findImage(list.Images, name, c.str("variant"))
	if err != nil {
		return err
	}
	s, err := image.SpecOf(recorded.How)
	if err != nil {
		return fmt.Errorf("rebuild %s: %w", name, err)
	}
	tools, err := c.p.builder.tools(ctx)
	if err != nil {
		return err
	}
	out := &api.RebuildResult{Name: name, Variant: recorded.Variant, Recorded: recorded.SHA256, Tools: []api.ToolDifference{}}
	for _, d := range tools.CompareTools(recorded.How) {
		out.Tools = append(out.Tools, api.ToolDifference{Tool: d[0], Recorded: d[1], Here: d[2]})
		if !c.ui.json {
			c.ui.warning("the image was built with %s %s; this machine has %s", d[0], orWord(d[1], "(unknown)"), d[2])
		}
	}
	f, err := c.frozen(ctx, name)
	if err != nil {
		return err
	}
	if s.Sources, err = c.installSources(ctx, f); err != nil {
		return err
	}
	file, done, err := c.build(ctx, s, name, c.str("output"))
	if err != nil {
		return err
	}
	defer done()
	if out.Built, err = fileDigest(file); err != nil {
		return err
	}
	out.Equal = out.Built == out.Recorded
	if key != nil {
		if out.Attestation, err = c.attest(ctx, api.AttestRequest{Name: name, Variant: recorded.Variant, Image: out.Built, Tools: tools}, key, ""); err != nil {
			return err
		}
	}
	if !out.Equal || o.Explain != "" {
		if out.Compare, err = c.compareRebuilt(ctx, recorded, file, o); err != nil {
			return err
		}
		out.Exit = out.Compare.Exit
	}
	if key != nil && !out.Equal {
		if out.Comparison, err = c.keepComparison(ctx, name, out.Compare); ctx.Err() != nil {
			return err
		} else if err != nil { // still report the result of a long build
			c.ui.warning("the differences are not stored beside %s: %v", name, err)
		}
	}
	show(c.ui, out, c.ui.rebuilt)
	if out.Exit != api.ExitOK {
		if err := c.ui.flush(); err != nil {
			return err
		}
		c.ui.failure(fmt.Sprintf("rebuild %s: the image differs from the recorded one", name), rebuildHint(out))
	}
	return exitCode(out.Exit)
}

// compareRebuilt compares the recorded image with the new one.
func (c *call) compareRebuilt(ctx context.Context, recorded api.Image, file string, o compare.Options) (*api.CompareResult, error) {
	old, err := c.getImage(ctx, recorded)
	if err != nil {
		return nil, err
	}
	defer old.Close()
	built, err := regfile.Open(file)
	if err != nil {
		return nil, err
	}
	defer built.Close()
	return compare.Files(ctx, old, built, "the recorded image", file, o)
}

// keepComparison has snapd store the differences beside the freeze, and returns the
// path of their page.
func (c *call) keepComparison(ctx context.Context, name string, r *api.CompareResult) (string, error) {
	data, err := freeze.EncodeComparison(r)
	if err != nil {
		return "", err
	}
	var kept api.AttestedComparison
	if err := c.ask(ctx, "attest/comparison", api.AttestComparison{Name: name, Comparison: data}, &kept); err != nil {
		return "", err
	}
	return "/freeze/" + url.PathEscape(kept.Name) + "/comparison/" + cas.Sum(data).String(), nil
}

func rebuildHint(r *api.RebuildResult) string {
	if len(r.Tools) > 0 {
		return "use the tools that the image was built with: " + toolText(r.Tools)
	}
	return "keep the new image with --output FILE to inspect the differences"
}

func toolText(list []api.ToolDifference) string {
	var out []string
	for _, t := range list {
		out = append(out, t.Tool+" "+orWord(t.Recorded, "(unknown)"))
	}
	return strings.Join(out, ", ")
}

// addImage sends an image and checks that snapd has its bytes.
func (c *call) addImage(ctx context.Context, req api.ImageAdd, file string, r *api.Image) error {
	want, err := fileDigest(file)
	if err != nil {
		return err
	}
	if err := c.send(ctx, "image/add", req, []string{file}, r); err != nil {
		return err
	}
	if r.SHA256 != want {
		return fmt.Errorf("send %s: %w: snapd recorded an image with SHA-256 %s, the file has %s", file, client.ErrTruncated, r.SHA256, want)
	}
	return nil
}

// getImage downloads a recorded image to an unlinked temporary file.
func (c *call) getImage(ctx context.Context, im api.Image) (_ *os.File, err error) {
	f, err := os.CreateTemp("", "snapctl-image-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	err = c.asking(func(cl *client.Client, progress func(api.Progress)) error {
		return cl.Receive(ctx, "image/get", api.ImageGet{Name: im.Name, SHA256: im.SHA256}, im.SHA256, f, progress)
	})
	if err != nil {
		return nil, fmt.Errorf("get image of %s: %w", im.Name, err)
	}
	return f, nil
}
