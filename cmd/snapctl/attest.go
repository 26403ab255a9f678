package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/freeze/client"
	"example.org/snapd/internal/regfile"
)

// errUnconfirmed means that too few builders confirm an image.
var errUnconfirmed = errclass.New(errclass.Security, "too few builders confirm the image")

// rebuilderOption names the trusted rebuilders of packages.
var rebuilderOption = option{name: "rebuilders", value: "FILE", usage: "rebuilders, with their public keys, that must have reproduced each package (docs/ATTEST.md)"}

// builderOptions name the trusted builders of images.
var builderOptions = []option{
	{name: "builders", value: "FILE", usage: "builders, with their public keys, that must confirm each image (docs/ATTEST.md)"},
	{name: "threshold", value: "N", usage: "how many of --builders must confirm each image"},
}

func attestVerb() *verb {
	key := option{name: "key", value: "FILE", required: true, usage: "private key of the builder: Ed25519 (PEM) or OpenPGP (armored)"}
	return &verb{
		name: "attest", args: "NAME", min: 1, max: 1,
		usage: "sign that an image was built from a freeze, and keep others' attestations",
		about: `attest signs a statement that an image was built from the freeze, with the tools
that built it and whether the image is the published one. The attestation, an
in-toto statement in a DSSE envelope, is kept beside the freeze, served and
exported with it, and recorded in the transparency log.

Anyone can attest, but only attestations by builders that the user names count:
snapctl verify NAME --builders FILE --threshold N. docs/ATTEST.md describes it.`,
		examples: []string{
			"snapctl attest 4.1 --image 4.1.squashfs --key builder.pem",
			"snapctl attest import 4.1-ci.json",
			"snapctl attest list 4.1 --builders builders.txt",
		},
		options: []option{
			{name: "image", value: "FILE", required: true, usage: "the image that was built"},
			key,
			{name: "variant", value: "V", usage: "name of the image, if the freeze has several"},
			{name: "tool", value: "NAME=VERSION", many: true, usage: "a tool that built the image"},
			{name: "output", value: "FILE", usage: "also write the attestation to this file, for attest import on another server"},
		},
		result: new(api.Attested),
		run:    runAttest,
		verbs: []*verb{
			{
				name: "import", args: "FILE|URL...", min: 1, max: -1,
				usage: "keep attestations that others made",
				about: `The server keeps each attestation beside its freeze, if it has the freeze with
the same manifest. It accepts any signer, because an attestation counts only for
users who name its builder. "-" reads standard input. Importing an attestation
again is not an error.`,
				examples: []string{
					"snapctl attest import 4.1-ci.json",
					"snapctl attest import https://mirror.example.org/frozen/4.1/_statements/attestation-5f3c.json",
				},
				result: new(api.AttestedList),
				reads:  true,
				run:    runAttestImport,
			},
			{
				name: "list", args: "NAME", min: 1, max: 1,
				usage: "list the attestations of a freeze",
				about: `With --builders, list verifies the signatures of attestations and names the
builders that made them. Otherwise it prints the keys that attestations claim to
be signed by, without verifying it.`,
				examples: []string{"snapctl attest list 4.1 --builders builders.txt"},
				options:  []option{{name: "builders", value: "FILE", usage: "builders and their public keys"}},
				result:   new(api.AttestationList),
				run:      runAttestList,
			},
			fetchVerb(),
			{
				name: "rm", args: "NAME DIGEST", min: 2, max: 2,
				usage: "remove an attestation, a comparison, or rebuilders' attestations",
				about: `DIGEST is the SHA-256 in the name of the file, as snapctl attest list NAME
prints it. The transparency log keeps the entry of the attestation and gets one
for the removal. Copies on other servers and in exports remain; importing such
an export adds the file again.`,
				examples: []string{"snapctl attest rm 4.1 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"},
				result:   new(api.AttestRemoved),
				run:      runAttestRemove,
			},
		},
	}
}

func runAttest(ctx context.Context, c *call) error {
	if err := c.checkName("name", c.arg(0)); err != nil {
		return err
	}
	key, err := attest.LoadKey(c.str("key"))
	if err != nil {
		return err
	}
	req := api.AttestRequest{Name: c.arg(0), Variant: c.str("variant"), Tools: map[string]string{"snapctl": version()}}
	for _, t := range c.list("tool") {
		name, v, ok := strings.Cut(t, "=")
		if !ok || name == "" || v == "" {
			return c.usagef("--tool %q: expected NAME=VERSION", t)
		}
		req.Tools[name] = v
	}
	if req.Image, err = fileDigest(c.str("image")); err != nil {
		return err
	}
	r, err := c.attest(ctx, req, key, c.str("output"))
	if err != nil {
		return err
	}
	show(c.ui, r, c.ui.attested)
	return nil
}

// attest signs the statement that an image was built from a freeze, and has snapd store
// the attestation. Before it signs the statement that snapd proposes, it compares it
// with the facts known here. If output is not empty, it also writes the attestation to
// this file.
func (c *call) attest(ctx context.Context, req api.AttestRequest, key *attest.Key, output string) (*api.Attested, error) {
	f, err := c.frozen(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	req.Builder = key.URI()
	var proposed api.AttestStatement
	if err := c.ask(ctx, "attest/statement", req, &proposed); err != nil {
		return nil, err
	}
	s, err := attest.ParseStatement(proposed.Payload)
	if err != nil {
		return nil, fmt.Errorf("statement that snapd proposes: %w", err)
	}
	for _, p := range []struct{ what, got, want string }{
		{"freeze", s.Freeze, req.Name}, {"freeze manifest", s.Manifest.String(), f.Manifest}, {"image", s.Image.String(), req.Image},
		{"builder", s.Builder, req.Builder}, {"variant", s.Variant, orWord(req.Variant, s.Variant)},
	} {
		if p.got != p.want {
			return nil, fmt.Errorf("statement that snapd proposes: %w: expected the %s %s, found %s", attest.ErrOther, p.what, p.want, p.got)
		}
	}
	// Sign only what snapctl understands.
	if known, err := s.Encode(); err != nil {
		return nil, err
	} else if !maps.Equal(s.Tools, req.Tools) || !bytes.Equal(known, proposed.Payload) {
		return nil, fmt.Errorf("statement that snapd proposes: %w: expected the tools of this machine and no unknown fields", attest.ErrOther)
	}
	e, err := key.Sign(proposed.Payload, f.Date)
	if err != nil {
		return nil, err
	}
	data, err := e.Encode()
	if err != nil {
		return nil, err
	}
	var r api.Attested
	if err := c.ask(ctx, "attest/add", api.AttestAdd{Name: req.Name, Envelope: data}, &r); err != nil {
		return nil, err
	}
	if output != "" {
		if err := durable.WriteFile(output, append(data, '\n'), 0o644); err != nil {
			return nil, err
		}
	}
	return &r, nil
}

// attestKey loads the key for rebuild --attest: --key, or else the server's key in the
// configuration that --config names.
func (c *call) attestKey() (*attest.Key, error) {
	switch {
	case c.str("key") != "":
		return attest.LoadKey(c.str("key"))
	case c.str("config") == "":
		return nil, c.usagef("--attest needs --key FILE, or --config for the key of the server")
	}
	s, err := c.configSigner()
	if err != nil {
		return nil, err
	}
	return attest.KeyOf(s), nil
}

func (u *ui) attested(r *api.Attested) {
	word := "attested"
	if !r.New {
		word = "attested before"
	}
	u.printf("%s: image %s %s: %s\n", r.Name, r.Variant, word, verdict(r.Attestation))
	u.printf("%s\n", r.File)
}

// verdict describes whether the attested image equals the published one.
func verdict(a api.Attestation) string {
	switch {
	case a.Damage != "":
		return a.Damage
	case a.Equal:
		return "equal, sha256:" + a.Image
	}
	return "sha256:" + a.Image + " differs from the published sha256:" + a.Expected
}

func runAttestImport(ctx context.Context, c *call) error {
	out := api.AttestedList{Attestations: []api.Attested{}}
	for _, from := range c.Args().Slice() {
		data, err := c.readAttestation(ctx, from)
		if err != nil {
			return err
		}
		a, err := attest.Parse(data)
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		if err := c.checkName("freeze of "+from, a.Statement.Freeze); err != nil {
			return err
		}
		var r api.Attested
		if err := c.ask(ctx, "attest/add", api.AttestAdd{Name: a.Statement.Freeze, Envelope: data}, &r); err != nil {
			return err
		}
		out.Attestations = append(out.Attestations, r)
	}
	show(c.ui, &out, func(r *api.AttestedList) {
		for i := range r.Attestations {
			c.ui.attested(&r.Attestations[i])
		}
	})
	return nil
}

func runAttestRemove(ctx context.Context, c *call) error {
	if err := c.checkName("name", c.arg(0)); err != nil {
		return err
	}
	// Accept the name of the file, as attest list prints it.
	word := strings.TrimSuffix(path.Base(c.arg(1)), ".json")
	for _, prefix := range []string{"attestation-", "rebuilds-", "comparison-", "sha256:"} {
		word = strings.TrimPrefix(word, prefix)
	}
	digest, err := cas.ParseDigest(word)
	if err != nil {
		return c.usagef("DIGEST %q: expected the SHA-256 of an attestation, 64 hexadecimal digits", c.arg(1))
	}
	var r api.AttestRemoved
	if err := c.ask(ctx, "attest/rm", api.AttestRemove{Name: c.arg(0), SHA256: digest.String()}, &r); err != nil {
		return err
	}
	show(c.ui, &r, func(r *api.AttestRemoved) { c.ui.printf("%s: %s removed\n", r.Name, r.File) })
	return nil
}

// attestTime limits the time to download an attestation.
const attestTime = time.Minute

// readAttestation reads a file, or fetches a URL.
func (c *call) readAttestation(ctx context.Context, from string) ([]byte, error) {
	if !strings.HasPrefix(from, "http://") && !strings.HasPrefix(from, "https://") {
		return c.readLimited(from, attest.MaxEnvelope)
	}
	u, err := url.Parse(from)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, c.usagef("%q: expected a URL without user name and password", from)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	cl := &http.Client{Timeout: attestTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := cl.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d, expected an attestation", from, res.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, attest.MaxEnvelope+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	if len(data) > attest.MaxEnvelope {
		return nil, fmt.Errorf("%s: larger than %s: %w", from, bytesText(attest.MaxEnvelope), errTooLarge)
	}
	return data, nil
}

// builders returns the text of --builders and the parsed builders, or nil if the option
// is absent.
func (c *call) builders() (text string, b *attest.Builders, err error) {
	name := c.str("builders")
	if name == "" {
		return "", nil, nil
	}
	data, err := regfile.Read(name, attest.MaxBuilders)
	if err != nil {
		return "", nil, fmt.Errorf("--builders: %w", err)
	}
	if b, err = attest.ParseBuilders(data); err != nil {
		return "", nil, fmt.Errorf("--builders %s: %w", name, err)
	}
	return string(data), b, nil
}

// threshold reads --builders and --threshold, which must be given together; n is 0 if
// neither is given.
func (c *call) threshold() (text string, b *attest.Builders, n int, err error) {
	given := c.str("threshold")
	if c.str("rebuilders") != "" && c.str("builders") == "" {
		return "", nil, 0, nil // the threshold is that of --rebuilders
	}
	if (given == "") != (c.str("builders") == "") {
		return "", nil, 0, c.usagef("--builders and --threshold must be given together")
	}
	if text, b, err = c.builders(); err != nil || b == nil {
		return "", nil, 0, err
	}
	if n, err = strconv.Atoi(given); err != nil || n < 1 || n > len(b.Names()) {
		return "", nil, 0, c.usagef("--threshold %q: expected a number from 1 to %d, the number of builders", given, len(b.Names()))
	}
	return text, b, n, nil
}

func runAttestList(ctx context.Context, c *call) error {
	if err := c.checkName("name", c.arg(0)); err != nil {
		return err
	}
	_, b, err := c.builders()
	if err != nil {
		return err
	}
	var r api.AttestationList
	if err := c.ask(ctx, "attest/list", api.AttestRef{Name: c.arg(0), Envelopes: b != nil}, &r); err != nil {
		return err
	}
	if b != nil {
		manifest, err := cas.ParseDigest(r.Manifest)
		if err != nil {
			return err
		}
		if r.Name != c.arg(0) {
			return fmt.Errorf("snapd answers with attestations of %s, expected those of %s", r.Name, c.arg(0))
		}
		for i := range r.Attestations {
			one := &r.Attestations[i]
			// Show only signed data as a builder's statement.
			a, err := attest.Parse(one.Envelope)
			if err == nil {
				err = a.Check(r.Name, manifest)
			}
			if err != nil {
				*one = api.Attestation{Name: r.Name, File: one.File, Damage: err.Error()}
				continue
			}
			*one = client.Attestation(one.File, a)
			one.Builders = b.Signers(a.Envelope)
		}
	}
	for i := range r.Rebuilds {
		r.Rebuilds[i].Links = nil
	}
	show(c.ui, &r, func(r *api.AttestationList) {
		c.ui.attestations(r.Attestations, b != nil)
		for _, file := range r.Comparisons {
			c.ui.printf("what differs in a rebuilt image: %s\n", file)
		}
		for _, l := range r.Rebuilds {
			c.ui.printf("rebuilders' attestations of packages: %s, %s\n", l.File, bytesText(l.Size))
		}
	})
	return nil
}

// attestations prints a table, with the builders if their signatures were verified.
func (u *ui) attestations(list []api.Attestation, verified bool) {
	if len(list) == 0 {
		u.printf("no attestations\n")
		return
	}
	head := "CLAIMS TO BE BY KEY"
	if verified {
		head = "BUILDER"
	}
	rows := [][]string{{"VARIANT", head, "VERDICT", "FILE"}}
	for _, a := range list {
		by := strings.Join(a.Keys, " ")
		if verified {
			by = orWord(strings.Join(a.Builders, " "), "(none of those named)")
		}
		rows = append(rows, []string{a.Variant, by, verdict(a), a.File})
	}
	u.table(rows...)
}

// confirmed prints which builders confirm the images of a freeze.
func (u *ui) confirmed(r *api.BuilderResult) {
	if r == nil {
		return
	}
	u.heading(fmt.Sprintf("Builders, of whom %d must confirm each image:", r.Threshold))
	rows := [][]string{{"  IMAGE", "SHA256", "CONFIRMED BY", "NOTHING FROM"}}
	for _, im := range r.Images {
		by := fmt.Sprintf("%d of %d", len(im.Confirm), len(r.Builders))
		if len(im.Confirm) > 0 {
			by += ": " + strings.Join(im.Confirm, " ")
		}
		rows = append(rows, []string{"  " + im.Variant, im.SHA256, by, strings.Join(im.Silent, " ")})
	}
	u.table(rows...)
	for _, im := range r.Images {
		for _, d := range im.Dissent {
			u.printf("  %s: builder %s %s\n", im.Variant, d.Builder, d.Why)
		}
	}
}

// configuredBuilders returns the builders in the configuration, and how many of them
// must confirm an image; nil if it has no builders.
func (c *call) configuredBuilders() (*attest.Builders, int, error) {
	if c.str("config") == "" {
		return nil, 0, nil
	}
	cfg, err := c.config()
	if err != nil || cfg.Signing.Builders == "" {
		return nil, 0, err
	}
	data, err := regfile.Read(cfg.Signing.Builders, attest.MaxBuilders)
	if err != nil {
		return nil, 0, fmt.Errorf("builders of %s: %w", c.str("config"), err)
	}
	b, err := attest.ParseBuilders(data)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", cfg.Signing.Builders, err)
	}
	n := cfg.Signing.Threshold
	if n > len(b.Names()) {
		return nil, 0, fmt.Errorf("%w: threshold %d in %s: expected at most %d, the number of builders", config.ErrInvalid, n, c.str("config"), len(b.Names()))
	}
	return b, n, nil
}

// confirmer returns a function that refuses images of a freeze that too few builders
// confirm. snapctl verifies the signatures itself. The function is nil if neither the
// command line nor the configuration names builders.
func (c *call) confirmer(ctx context.Context, name string) (func(cas.Digest) error, error) {
	_, b, n, err := c.threshold()
	if err == nil && b == nil {
		b, n, err = c.configuredBuilders()
	}
	if err != nil || b == nil {
		return nil, err
	}
	var list api.AttestationList
	if err := c.ask(ctx, "attest/list", api.AttestRef{Name: name, Envelopes: true}, &list); err != nil {
		return nil, err
	}
	if list.Name != name {
		return nil, fmt.Errorf("snapd answers with attestations of %s, expected those of %s", list.Name, name)
	}
	manifest, err := cas.ParseDigest(list.Manifest)
	if err != nil {
		return nil, err
	}
	var all []*attest.Attestation
	for _, one := range list.Attestations {
		a, err := attest.Parse(one.Envelope)
		if err != nil || a.Check(list.Name, manifest) != nil {
			continue // attest list prints the reason
		}
		all = append(all, a)
	}
	return func(image cas.Digest) error {
		said := b.Confirm("", image, all)
		if len(said.Confirm) >= n {
			return nil
		}
		return fmt.Errorf("image %s of %s: %w: expected %d, found %d (%s)", image, list.Name, errUnconfirmed, n, len(said.Confirm), orWord(strings.Join(said.Confirm, " "), "none"))
	}, nil
}
