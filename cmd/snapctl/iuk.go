package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/iuk"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/squashfs"
)

func iukVerb() *verb {
	return &verb{
		name:  "iuk",
		usage: "make, inspect, prove and apply incremental upgrade kits",
		about: `A kit holds the difference of two images in Tails' format 2. Its bytes depend on
the images, versions and options alone, and no mount, root or other tool is
needed to make one.`,
		examples: []string{
			"snapctl iuk create --from 4.0 --to 4.1",
			"snapctl iuk verify Tails_amd64_4.0_to_4.1.iuk --old 4.0.squashfs --new 4.1.squashfs",
		},
		verbs: []*verb{
			{
				name:  "create",
				usage: "make kits from old versions to a new one",
				about: `--from and --to name frozen snapshots whose images snapd knows (image add, image
build); --old and --new are SquashFS files, or ISO images that hold one. The new
image is read once for all kits.

The kit's own times are SOURCE_DATE_EPOCH; without it, the date of the frozen
snapshot --to, or the time in the SquashFS file --new.`,
				examples: []string{
					"snapctl iuk create --from 4.0,3.9 --to 4.1 --output kits/",
					"snapctl iuk create --old old.squashfs --new new.squashfs --from-version 4.0 --to-version 4.1 --output Tails_amd64_4.0_to_4.1.iuk",
				},
				options: []option{
					{name: "from", value: "NAME[,NAME...]", many: true, usage: "frozen snapshots to upgrade from"},
					{name: "to", value: "NAME", usage: "frozen snapshot to upgrade to"},
					{name: "variant", value: "V", usage: "which image of the frozen snapshots"},
					{name: "old", value: "FILE", usage: "image to upgrade from"},
					{name: "new", value: "FILE", usage: "image to upgrade to"},
					{name: "from-version", value: "V", usage: "version of --old"},
					{name: "to-version", value: "V", usage: "version of --new"},
					{name: "output", value: "FILE-or-DIR", usage: "file of the kit, or directory of the kits: one that exists, or whose name ends in a slash (default: this directory)"},
					{name: "product", value: "P", usage: "first word of the kits' names (default Tails)"},
					{name: "arch", value: "A", usage: "second word of the kits' names (default amd64)"},
					{name: "ignore-if-same-content", value: "GLOB", many: true, usage: "leave out files of these paths when only their attributes changed"},
					{name: "publish", usage: "have snapd serve the kits below /iuk/"},
				},
				result: new(api.KitList),
				long:   true,
				run:    runIUKCreate,
			},
			{
				name: "inspect", args: "FILE", min: 1, max: 1,
				usage:    "print what a kit holds and why",
				examples: []string{"snapctl iuk inspect Tails_amd64_4.0_to_4.1.iuk"},
				options:  []option{{name: "largest", value: "N", usage: "how many of the largest files to list (default 20)"}},
				result:   new(iuk.Inspection),
				reads:    true,
				run:      runIUKInspect,
			},
			{
				name: "verify", args: "FILE", min: 1, max: 1,
				usage:    "prove that the old image and the kit make the new image",
				about:    "Nothing is mounted. The exit code is 4 when it does not hold.",
				examples: []string{"snapctl iuk verify Tails_amd64_4.0_to_4.1.iuk --old 4.0.squashfs --new 4.1.squashfs"},
				options: []option{
					{name: "old", value: "FILE", required: true, usage: "image that the kit is for"},
					{name: "new", value: "FILE", required: true, usage: "image that it upgrades to"},
				},
				result: new(iuk.VerifyReport),
				long:   true,
				reads:  true,
				run:    runIUKVerify,
			},
			{
				name: "apply", args: "[FILE]", max: 1,
				usage: "install a kit onto a system partition that is mounted",
				about: `New files are written first, under new names; then fixed names are replaced from
a journal on the target. After an interruption the same command completes the
upgrade, and --rollback restores the old state. The boot loader is not
installed: the command for it is printed.`,
				examples: []string{
					"snapctl iuk apply Tails_amd64_4.0_to_4.1.iuk --target /mnt/system",
					"snapctl iuk apply --target /mnt/system --rollback",
				},
				options: []option{
					{name: "target", value: "DIR", required: true, usage: "where the system partition is mounted"},
					{name: "rollback", usage: "restore the state before an unfinished upgrade"},
				},
				result: new(iuk.ApplyResult),
				run:    runIUKApply,
			},
			{
				name:  "udf",
				usage: "write and sign upgrade-description files",
				about: `Writes the files that clients of each version ask for, below v2/ in the output
directory, and signs them with the key in --config or --key-file. Signatures are
dated --date, else SOURCE_DATE_EPOCH, else with the key's creation, so equal
inputs give equal bytes.`,
				examples: []string{
					"snapctl iuk udf --config config.toml --to 4.1 --from 4.0 --from 3.9 --next 4.2 --product Tails --build-target amd64 --channel stable --iuk-url https://kits.example.org/stable --image-url https://images.example.org/4.1.img --iuks kits --image 4.1.img --output udf",
				},
				options: []option{
					{name: "to", value: "V", required: true, usage: "version that is released"},
					{name: "from", value: "V", many: true, required: true, usage: "version that may be upgraded"},
					{name: "next", value: "V", many: true, usage: "version to come, whose clients must find an empty file"},
					{name: "product", value: "P", required: true, usage: "product name, such as Tails"},
					{name: "build-target", value: "A", required: true, usage: "architecture, such as amd64"},
					{name: "channel", value: "CHANNEL", required: true, choices: []string{"stable", "alpha"}, usage: "stable or alpha"},
					{name: "iuk-url", value: "URL", required: true, usage: "directory that the kits are downloaded from"},
					{name: "image-url", value: "URL", required: true, usage: "where the full image is downloaded from"},
					{name: "iuks", value: "DIR", required: true, usage: "directory with the kits; one that is missing is not offered"},
					{name: "image", value: "FILE", required: true, usage: "the full image"},
					{name: "output", value: "DIR", required: true, usage: "directory that v2/ goes into"},
					{name: "details-url", value: "URL", usage: "page for people about the upgrade"},
					{name: "date", value: "T", usage: "date of the signatures"},
					keyFileOption,
					{name: "publish", usage: "have snapd serve the files below /iuk/"},
				},
				result: new(api.UDFList),
				run:    runIUKUDF,
			},
		},
	}
}

// openImage opens an image file as an input for kits.
func openImage(name string) (iuk.Input, *os.File, error) {
	f, err := regfile.Open(name)
	if err != nil {
		return iuk.Input{}, nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return iuk.Input{}, nil, err
	}
	return iuk.Input{R: f, Size: st.Size(), Name: name}, f, nil
}

// epoch is SOURCE_DATE_EPOCH, zero when it is not set.
func (c *call) epoch() (time.Time, error) {
	s := c.p.getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, c.usagef("SOURCE_DATE_EPOCH %q: expected seconds since 1970", s)
	}
	return time.Unix(n, 0).UTC(), nil
}

// boundMemory has the garbage collector keep to what kits may take, unless the
// user said otherwise.
func (c *call) boundMemory() {
	if c.p.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(iuk.MemoryGoal)
	}
}

func runIUKCreate(ctx context.Context, c *call) error {
	c.boundMemory()
	from := splitCommas(c.list("from"))
	named := len(from) > 0 || c.str("to") != ""
	filed := c.str("old") != "" || c.str("new") != "" || c.str("from-version") != "" || c.str("to-version") != ""
	switch {
	case named == filed:
		return c.usagef("give either --from and --to, or --old, --new, --from-version and --to-version")
	case named && (len(from) == 0 || c.str("to") == ""):
		return c.usagef("--from and --to belong together")
	case filed && (c.str("old") == "" || c.str("new") == "" || c.str("from-version") == "" || c.str("to-version") == ""):
		return c.usagef("--old, --new, --from-version and --to-version belong together")
	case filed && c.str("variant") != "":
		return c.usagef("--variant needs --from and --to")
	}
	opts := iuk.CreateOptions{
		Product: c.str("product"), Arch: c.str("arch"), Output: c.str("output"),
		IgnoreIfSameContent: c.list("ignore-if-same-content"),
		Progress:            c.ui.steps("iuk", "compare"),
	}
	if opts.Output == "" {
		opts.Output = "."
	}
	var err error
	if opts.Epoch, err = c.epoch(); err != nil {
		return err
	}
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	source := func(version, file string) (iuk.Source, error) {
		in, f, err := openImage(file)
		if err != nil {
			return iuk.Source{}, err
		}
		open = append(open, f)
		return iuk.Source{Version: version, Image: in}, nil
	}
	if filed {
		old, err := source(c.str("from-version"), c.str("old"))
		if err != nil {
			return err
		}
		if opts.To, err = source(c.str("to-version"), c.str("new")); err != nil {
			return err
		}
		opts.From = []iuk.Source{old}
		if opts.Epoch.IsZero() {
			r, err := squashfs.Open(opts.To.Image.R, opts.To.Image.Size, squashfs.Limits{})
			if err != nil {
				return c.usagef("SOURCE_DATE_EPOCH is not set, and %s is no SquashFS file that says its time", c.str("new"))
			}
			opts.Epoch = time.Unix(int64(r.Superblock().ModTime), 0).UTC()
		}
	} else {
		var images api.ImageList
		if err := c.ask(ctx, "image/list", api.Empty{}, &images); err != nil {
			return err
		}
		frozenSource := func(name string) (iuk.Source, *api.Frozen, error) {
			if err := c.checkName("name", name); err != nil {
				return iuk.Source{}, nil, err
			}
			img, err := findImage(images.Images, name, c.str("variant"))
			if err != nil {
				return iuk.Source{}, nil, err
			}
			var shown api.ShowResult
			if err := c.ask(ctx, "show", api.RefRequest{Ref: name}, &shown); err != nil {
				return iuk.Source{}, nil, err
			}
			if shown.Frozen == nil {
				return iuk.Source{}, nil, fmt.Errorf("%s is no frozen snapshot", name)
			}
			s, err := source(name, img.Path)
			if err != nil {
				return s, nil, err
			}
			s.Manifest = shown.Frozen.Manifest
			// The store names blobs by digests that it verified.
			if s.Image.SHA256, err = cas.ParseDigest(img.SHA256); err != nil {
				return s, nil, err
			}
			return s, shown.Frozen, nil
		}
		for _, n := range from {
			s, _, err := frozenSource(n)
			if err != nil {
				return err
			}
			opts.From = append(opts.From, s)
		}
		var f *api.Frozen
		if opts.To, f, err = frozenSource(c.str("to")); err != nil {
			return err
		}
		if opts.Epoch.IsZero() {
			opts.Epoch = f.Date
		}
	}
	made, err := iuk.Create(ctx, opts)
	c.ui.endProgress()
	if err != nil {
		return err
	}
	out := api.KitList{Kits: []api.Kit{}}
	var publish api.KitPublish
	for _, m := range made {
		digest, err := fileDigest(m.Path)
		if err != nil {
			return err
		}
		k := api.Kit{
			From: m.From, To: m.To, Path: m.Path, Size: m.Size, SHA256: digest,
			Added: m.Diff.Added, Changed: m.Diff.Changed, Removed: m.Diff.Removed, Ignored: m.Diff.Ignored, Copied: m.Diff.CopiedBytes,
			BaseImage: m.Provenance.Base.SHA256.String(), NewImage: m.Provenance.New.SHA256.String(),
		}
		if c.on("publish") {
			abs, err := absolute(m.Path)
			if err != nil {
				return err
			}
			name := iuk.KitName(m.Provenance.Product, m.Provenance.Arch, m.From, m.To)
			publish.Files = append(publish.Files, api.KitFile{File: abs, Path: name})
			k.URL = "/iuk/" + name
		}
		out.Kits = append(out.Kits, k)
	}
	if len(publish.Files) > 0 {
		if err := c.ask(ctx, "kit/publish", publish, nil); err != nil {
			return err
		}
	}
	show(c.ui, &out, c.ui.kits)
	return nil
}

// splitCommas takes lists apart that are written with commas.
func splitCommas(list []string) []string {
	var out []string
	for _, s := range list {
		for _, w := range strings.Split(s, ",") {
			if w != "" {
				out = append(out, w)
			}
		}
	}
	return out
}

// findImage picks the image of a frozen snapshot.
func findImage(list []api.Image, name, variant string) (api.Image, error) {
	var found []api.Image
	var variants []string
	for _, i := range list {
		if i.Name == name {
			variants = append(variants, orWord(i.Variant, "(none)"))
			if variant == "" || i.Variant == variant {
				found = append(found, i)
			}
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return api.Image{}, &api.Error{Code: "ambiguous_image", Exit: api.ExitFailed, Message: fmt.Sprintf("frozen snapshot %s has several images: %s", name, strings.Join(variants, ", "))}
	case len(variants) > 0:
		return api.Image{}, &api.Error{Code: api.CodeNotFound, Exit: api.ExitFailed, Message: fmt.Sprintf("frozen snapshot %s has no image of variant %q, only %s", name, variant, strings.Join(variants, ", "))}
	}
	return api.Image{}, &api.Error{Code: "no_image", Exit: api.ExitFailed, Message: fmt.Sprintf("frozen snapshot %s has no image", name)}
}

func fileDigest(name string) (string, error) {
	f, err := regfile.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func runIUKInspect(ctx context.Context, c *call) error {
	var o iuk.InspectOptions
	if s := c.str("largest"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return c.usagef("--largest %q: expected a number from 1", s)
		}
		o.Largest = n
	}
	in, f, err := openImage(c.arg(0))
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := iuk.Inspect(ctx, in, o)
	if err != nil {
		return err
	}
	show(c.ui, r, c.ui.inspected)
	return nil
}

func runIUKVerify(ctx context.Context, c *call) error {
	c.boundMemory()
	o := iuk.VerifyOptions{Progress: c.ui.steps("iuk", "verify")}
	for _, i := range []struct {
		in   *iuk.Input
		name string
	}{{&o.Kit, c.arg(0)}, {&o.Old, c.str("old")}, {&o.New, c.str("new")}} {
		in, f, err := openImage(i.name)
		if err != nil {
			return err
		}
		defer f.Close()
		*i.in = in
	}
	r, err := iuk.Verify(ctx, o)
	c.ui.endProgress()
	if err != nil {
		return err
	}
	show(c.ui, r, c.ui.kitVerified)
	return nil
}

func runIUKApply(ctx context.Context, c *call) error {
	var r *iuk.ApplyResult
	var err error
	switch {
	case c.on("rollback"):
		r, err = iuk.Rollback(ctx, c.str("target"), iuk.ApplyOptions{})
	case c.arg(0) == "":
		return c.usagef("iuk apply needs FILE")
	default:
		r, err = iuk.Apply(ctx, c.arg(0), c.str("target"), iuk.ApplyOptions{})
	}
	if err != nil {
		return err
	}
	show(c.ui, r, c.ui.applied)
	return nil
}

// udfSigner signs upgrade-description files with this server's key.
type udfSigner struct {
	s  *sign.Signer
	at time.Time
}

// SignDetached implements iuk.Signer.
func (u udfSigner) SignDetached(_ context.Context, w io.Writer, data []byte) error {
	sig, err := u.s.SignDetached(data, u.at)
	if err != nil {
		return err
	}
	_, err = w.Write(sig)
	return err
}

// maxPublicKey bounds the certificate of an external signer, in bytes.
const maxPublicKey = 1 << 20

// signer loads the key that signs, as snapd would.
func (c *call) signer() (*sign.Signer, error) {
	if c.str("key-file") == "" && c.str("config") != "" {
		cfg, err := c.config()
		if err != nil {
			return nil, err
		}
		if len(cfg.Signing.Command) > 0 {
			public, err := regfile.Read(cfg.Signing.KeyFile, maxPublicKey)
			if err != nil {
				return nil, err
			}
			return sign.NewCommandSigner(cfg.Signing.Command, public, sign.CommandOptions{})
		}
	}
	name, _, err := c.keyFile()
	if err != nil {
		return nil, err
	}
	return sign.LoadSigner(name)
}

func runIUKUDF(ctx context.Context, c *call) error {
	at, err := c.epoch()
	if err != nil {
		return err
	}
	if d, err := c.timestamp("date"); err != nil {
		return err
	} else if d != nil {
		at = *d
	}
	s, err := c.signer()
	if err != nil {
		return err
	}
	output := c.str("output")
	if err := os.MkdirAll(output, 0o755); err != nil {
		return err
	}
	files, err := iuk.WriteUDFs(ctx, iuk.UDFOptions{
		Product: c.str("product"), BuildTarget: c.str("build-target"), Channel: c.str("channel"),
		To: c.str("to"), From: splitCommas(c.list("from")), Next: splitCommas(c.list("next")),
		ImageURL: c.str("image-url"), Image: c.str("image"), IUKURL: c.str("iuk-url"), IUKs: c.str("iuks"),
		DetailsURL: c.str("details-url"), Output: output,
	}, udfSigner{s, at})
	if err != nil {
		return err
	}
	out := api.UDFList{Files: []api.UDFFile{}}
	var publish api.KitPublish
	for _, f := range files {
		out.Files = append(out.Files, api.UDFFile{Path: f.Path, Channel: f.Channel, Version: f.Version, Upgrade: f.Upgrade, Incremental: f.Incremental})
		for _, name := range []string{f.Path, f.Path + ".pgp"} {
			abs, err := absolute(filepath.Join(output, filepath.FromSlash(name)))
			if err != nil {
				return err
			}
			publish.Files = append(publish.Files, api.KitFile{File: abs, Path: path.Clean(name)})
		}
	}
	if c.on("publish") {
		if err := c.ask(ctx, "kit/publish", publish, nil); err != nil {
			return err
		}
	}
	show(c.ui, &out, c.ui.udfs)
	return nil
}
