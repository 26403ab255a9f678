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

// Long because it lists every command and option.
func iukVerb() *verb {
	return &verb{
		name:  "iuk",
		usage: "create, inspect, verify and apply incremental upgrade kits",
		about: `A kit contains the difference between two images in Tails' format 2. Its bytes
depend only on the images, versions and options. Creating one needs neither
root nor mounts nor other tools.`,
		examples: []string{
			"snapctl iuk create --from 4.0 --to 4.1",
			"snapctl iuk verify Tails_amd64_4.0_to_4.1.iuk --old 4.0.squashfs --new 4.1.squashfs",
		},
		verbs: []*verb{
			{
				name:  "create",
				usage: "create kits from old versions to a new one",
				about: `--from and --to are freezes whose images snapd has (image add, image build);
--old and --new are SquashFS files, or ISO images that contain one. The new
image is read once for all kits.

Timestamps in the kit are SOURCE_DATE_EPOCH, or else the date of the freeze
--to, or the time in the SquashFS file --new.`,
				examples: []string{
					"snapctl iuk create --from 4.0,3.9 --to 4.1 --output kits/",
					"snapctl iuk create --old old.squashfs --new new.squashfs --from-version 4.0 --to-version 4.1 --output Tails_amd64_4.0_to_4.1.iuk",
				},
				options: []option{
					{name: "from", value: "NAME[,NAME...]", many: true, usage: "freezes to upgrade from"},
					{name: "to", value: "NAME", usage: "freeze to upgrade to"},
					{name: "variant", value: "V", usage: "name of the image, if the freezes have several"},
					{name: "old", value: "FILE", usage: "image to upgrade from"},
					{name: "new", value: "FILE", usage: "image to upgrade to"},
					{name: "from-version", value: "V", usage: "version of --old"},
					{name: "to-version", value: "V", usage: "version of --new"},
					{name: "output", value: "FILE-or-DIR", usage: "file of the kit, or directory for the kits if it exists or its name ends in a slash (default: the current directory)"},
					{name: "product", value: "P", usage: "product, the first part of the kits' names (default Tails)"},
					{name: "arch", value: "A", usage: "architecture, the second part of the kits' names (default amd64)"},
					{name: "ignore-if-same-content", value: "GLOB", many: true, usage: "leave out these files if only their attributes changed"},
					{name: "publish", usage: "publish the kits on snapd below /iuk/"},
				},
				result: new(api.KitList),
				long:   true,
				run:    runIUKCreate,
			},
			{
				name: "inspect", args: "FILE", min: 1, max: 1,
				usage:    "show what a kit contains and why",
				examples: []string{"snapctl iuk inspect Tails_amd64_4.0_to_4.1.iuk"},
				options:  []option{{name: "largest", value: "N", usage: "how many of the largest files to list (default 20)"}},
				result:   new(iuk.Inspection),
				reads:    true,
				run:      runIUKInspect,
			},
			{
				name: "verify", args: "FILE", min: 1, max: 1,
				usage:    "verify that the old image and the kit make the new image",
				about:    "The exit code is 4 if they make another image. Nothing is mounted.",
				examples: []string{"snapctl iuk verify Tails_amd64_4.0_to_4.1.iuk --old 4.0.squashfs --new 4.1.squashfs"},
				options: []option{
					{name: "old", value: "FILE", required: true, usage: "image to upgrade from"},
					{name: "new", value: "FILE", required: true, usage: "image to upgrade to"},
				},
				result: new(iuk.VerifyReport),
				long:   true,
				reads:  true,
				run:    runIUKVerify,
			},
			{
				name: "apply", args: "[FILE]", max: 1,
				usage: "install a kit on a mounted system partition",
				about: `New files are written first, under new names; then existing files are replaced
with the help of a journal on the target. After an interruption, the same
command completes the upgrade, and --rollback restores the old state. The boot
loader is not installed: the command for it is printed.`,
				examples: []string{
					"snapctl iuk apply Tails_amd64_4.0_to_4.1.iuk --target /mnt/system",
					"snapctl iuk apply --target /mnt/system --rollback",
				},
				options: []option{
					{name: "target", value: "DIR", required: true, usage: "mount point of the system partition"},
					{name: "rollback", usage: "restore the state before an unfinished upgrade"},
				},
				result: new(iuk.ApplyResult),
				run:    runIUKApply,
			},
			{
				name:  "udf",
				usage: "write and sign upgrade-description files",
				about: `udf writes the files that clients of each version request to v2/ in the output
directory, and signs them with the key in --config or --key-file. The signatures
have the date --date, or else SOURCE_DATE_EPOCH, or else the creation time of
the key, so that the same inputs give the same bytes.

With --builders and --threshold, or those of [signing] in --config, udf writes
nothing unless that many builders confirm the full image and the new image of
each kit as images of the freeze --to.`,
				examples: []string{
					"snapctl iuk udf --config config.toml --to 4.1 --from 4.0 --from 3.9 --next 4.2 --product Tails --build-target amd64 --channel stable --iuk-url https://kits.example.org/stable --image-url https://images.example.org/4.1.img --iuks kits --image 4.1.img --output udf",
				},
				options: append([]option{
					{name: "to", value: "V", required: true, usage: "released version"},
					{name: "from", value: "V", many: true, required: true, usage: "version that can be upgraded"},
					{name: "next", value: "V", many: true, usage: "future version, for whose clients udf writes an empty file"},
					{name: "product", value: "P", required: true, usage: "product name, such as Tails"},
					{name: "build-target", value: "A", required: true, usage: "architecture, such as amd64"},
					{name: "channel", value: "CHANNEL", required: true, choices: []string{"stable", "alpha"}, usage: "stable or alpha"},
					{name: "iuk-url", value: "URL", required: true, usage: "URL of the directory with the kits"},
					{name: "image-url", value: "URL", required: true, usage: "URL of the full image"},
					{name: "iuks", value: "DIR", required: true, usage: "directory with the kits; missing kits are not offered"},
					{name: "image", value: "FILE", required: true, usage: "file of the full image"},
					{name: "output", value: "DIR", required: true, usage: "directory to create v2/ in"},
					{name: "details-url", value: "URL", usage: "URL of a page about the upgrade"},
					{name: "date", value: "T", usage: "date of the signatures"},
					keyFileOption,
					{name: "publish", usage: "publish the files on snapd below /iuk/"},
				}, builderOptions...),
				result: new(api.UDFList),
				run:    runIUKUDF,
			},
		},
	}
}

// openImage opens an image file as input for kits.
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

// epoch returns SOURCE_DATE_EPOCH, or zero if it is not set.
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

// boundMemory limits the heap to the documented memory use of kits, unless the user set
// a limit.
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
		return c.usagef("--from and --to must be given together")
	case filed && (c.str("old") == "" || c.str("new") == "" || c.str("from-version") == "" || c.str("to-version") == ""):
		return c.usagef("--old, --new, --from-version and --to-version must be given together")
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
	in := kitInputs{c: c}
	defer in.close()
	if filed {
		err = in.fromFiles(&opts)
	} else {
		err = in.fromFreezes(ctx, &opts, from)
	}
	if err != nil {
		return err
	}
	made, err := iuk.Create(ctx, opts)
	c.ui.endProgress()
	if err != nil {
		return err
	}
	out, err := c.publishKits(ctx, made)
	if err != nil {
		return err
	}
	show(c.ui, out, c.ui.kits)
	return nil
}

// kitInputs are the images that kits are made from.
type kitInputs struct {
	c    *call
	open []*os.File
}

func (k *kitInputs) close() {
	for _, f := range k.open {
		f.Close()
	}
}

// fromFiles uses the images --old and --new.
func (k *kitInputs) fromFiles(opts *iuk.CreateOptions) error {
	old, err := k.file(k.c.str("from-version"), k.c.str("old"))
	if err != nil {
		return err
	}
	if opts.To, err = k.file(k.c.str("to-version"), k.c.str("new")); err != nil {
		return err
	}
	opts.From = []iuk.Source{old}
	if opts.Epoch.IsZero() {
		r, err := squashfs.Open(opts.To.Image.R, opts.To.Image.Size, squashfs.Limits{})
		if err != nil {
			return k.c.usagef("SOURCE_DATE_EPOCH is not set, and %s is not a SquashFS file with a time", k.c.str("new"))
		}
		opts.Epoch = time.Unix(int64(r.Superblock().ModTime), 0).UTC()
	}
	return nil
}

// file opens an image file as the image of a version.
func (k *kitInputs) file(version, name string) (iuk.Source, error) {
	in, f, err := openImage(name)
	if err != nil {
		return iuk.Source{}, err
	}
	k.open = append(k.open, f)
	return iuk.Source{Version: version, Image: in}, nil
}

// fromFreezes uses images of freezes: those in from, and --to.
func (k *kitInputs) fromFreezes(ctx context.Context, opts *iuk.CreateOptions, from []string) error {
	var images api.ImageList
	if err := k.c.ask(ctx, "image/list", api.Empty{}, &images); err != nil {
		return err
	}
	for _, n := range from {
		s, _, err := k.freeze(ctx, images.Images, n)
		if err != nil {
			return err
		}
		opts.From = append(opts.From, s)
	}
	to, f, err := k.freeze(ctx, images.Images, k.c.str("to"))
	if err != nil {
		return err
	}
	opts.To = to
	if opts.Epoch.IsZero() {
		opts.Epoch = f.Date
	}
	return nil
}

// freeze opens the image of a freeze.
func (k *kitInputs) freeze(ctx context.Context, images []api.Image, name string) (iuk.Source, *api.Frozen, error) {
	if err := k.c.checkName("name", name); err != nil {
		return iuk.Source{}, nil, err
	}
	img, err := findImage(images, name, k.c.str("variant"))
	if err != nil {
		return iuk.Source{}, nil, err
	}
	var shown api.ShowResult
	if err := k.c.ask(ctx, "show", api.ShowRequest{Ref: name}, &shown); err != nil {
		return iuk.Source{}, nil, err
	}
	if shown.Frozen == nil {
		return iuk.Source{}, nil, fmt.Errorf("%s is not a freeze", name)
	}
	f, err := k.c.getImage(ctx, img)
	if err != nil {
		return iuk.Source{}, nil, err
	}
	k.open = append(k.open, f)
	s := iuk.Source{Version: name, Image: iuk.Input{R: f, Size: img.Size, Name: "image of " + name}, Manifest: shown.Frozen.Manifest}
	// The digest was verified when the image was received.
	if s.Image.SHA256, err = cas.ParseDigest(img.SHA256); err != nil {
		return s, nil, err
	}
	return s, shown.Frozen, nil
}

// publishKits describes the kits, and publishes them if --publish is given.
func (c *call) publishKits(ctx context.Context, made []iuk.Result) (*api.KitList, error) {
	out := &api.KitList{Kits: []api.Kit{}}
	var publish kitFiles
	for _, m := range made {
		digest, err := fileDigest(m.Path)
		if err != nil {
			return nil, err
		}
		k := api.Kit{
			From: m.From, To: m.To, Path: m.Path, Size: m.Size, SHA256: digest,
			Added: m.Diff.Added, Changed: m.Diff.Changed, Removed: m.Diff.Removed, Ignored: m.Diff.Ignored, Copied: m.Diff.CopiedBytes,
			BaseImage: m.Provenance.Base.SHA256.String(), NewImage: m.Provenance.New.SHA256.String(),
		}
		if c.on("publish") {
			name := iuk.KitName(m.Provenance.Product, m.Provenance.Arch, m.From, m.To)
			if err := publish.add(m.Path, name); err != nil {
				return nil, err
			}
			k.URL = "/iuk/" + name
		}
		out.Kits = append(out.Kits, k)
	}
	return out, c.publish(ctx, &publish)
}

// kitFiles are files to publish below /iuk/.
type kitFiles struct {
	req   api.KitPublish
	local []string
}

// add names a file and its path below /iuk/.
func (k *kitFiles) add(file, path string) error {
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	digest, err := fileDigest(file)
	if err != nil {
		return err
	}
	modified := st.ModTime().UTC().Truncate(time.Second)
	k.req.Files = append(k.req.Files, api.KitFile{Path: path, SHA256: digest, Modified: &modified})
	k.local = append(k.local, file)
	return nil
}

// publish sends files to snapd, which serves them. It does nothing without files.
func (c *call) publish(ctx context.Context, k *kitFiles) error {
	if len(k.local) == 0 {
		return nil
	}
	return c.send(ctx, "kit/publish", k.req, k.local, nil)
}

// splitCommas splits values at commas.
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

// findImage chooses an image of a freeze.
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
		return api.Image{}, &api.Error{Code: "ambiguous_image", Exit: api.ExitFailed, Message: fmt.Sprintf("freeze %s has several images: %s", name, strings.Join(variants, ", "))}
	case len(variants) > 0:
		return api.Image{}, &api.Error{Code: api.CodeNotFound, Exit: api.ExitFailed, Message: fmt.Sprintf("freeze %s has no image of variant %q, only %s", name, variant, strings.Join(variants, ", "))}
	}
	return api.Image{}, &api.Error{Code: "no_image", Exit: api.ExitFailed, Message: fmt.Sprintf("freeze %s has no image", name)}
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

// maxPublicKey limits the size of an external signer's certificate, in bytes.
const maxPublicKey = 1 << 20

// signer loads the signing key as snapd would.
func (c *call) signer() (*sign.Signer, error) {
	if c.str("key-file") == "" && c.str("config") != "" {
		return c.configSigner()
	}
	name, _, err := c.keyFile()
	if err != nil {
		return nil, err
	}
	return sign.LoadSigner(name)
}

// configSigner loads the signing key that --config names.
func (c *call) configSigner() (*sign.Signer, error) {
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
	return sign.LoadSigner(cfg.Signing.KeyFile)
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
	confirmed, err := c.confirmer(ctx, c.str("to"))
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
		DetailsURL: c.str("details-url"), Output: output, Confirmed: confirmed,
	}, udfSigner{s, at})
	if err != nil {
		return err
	}
	out := api.UDFList{Files: []api.UDFFile{}}
	var publish kitFiles
	for _, f := range files {
		out.Files = append(out.Files, api.UDFFile{Path: f.Path, Channel: f.Channel, Version: f.Version, Upgrade: f.Upgrade, Incremental: f.Incremental})
		for _, name := range []string{f.Path, f.Path + ".pgp"} {
			if !c.on("publish") {
				continue
			}
			if err := publish.add(filepath.Join(output, filepath.FromSlash(name)), path.Clean(name)); err != nil {
				return err
			}
		}
	}
	if err := c.publish(ctx, &publish); err != nil {
		return err
	}
	show(c.ui, &out, c.ui.udfs)
	return nil
}
