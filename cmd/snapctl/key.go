package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/sign"
)

// defaultKeyFile is the default path of snapd's key.
const defaultKeyFile = "/var/lib/frozen-snapd/signing-key.asc"

var keyFileOption = option{name: "key-file", value: "FILE", usage: "the private key (default: the one in --config, or " + defaultKeyFile + ")"}

func keyVerb() *verb {
	return &verb{
		name:  "key",
		usage: "create, show, export and renew the signing key",
		about: `The signing key is in a file that only its owner can read. Keys are created
without an expiry date, because apt refuses all signatures of an expired key.`,
		examples: []string{
			"snapctl key show --config config.toml",
			"snapctl key export > release.asc",
		},
		verbs: []*verb{
			{
				name:  "generate",
				usage: "create a signing key",
				about: `snapd creates a key when it first starts. An existing key is not replaced: move
it away first. Existing freezes keep their signatures and their key.`,
				examples: []string{`snapctl key generate --config config.toml --name "Example releases" --email release@example.org`},
				options: []option{
					keyFileOption,
					{name: "name", value: "NAME", usage: "name in the user ID (default: snapd)"},
					{name: "email", value: "ADDRESS", usage: "email address in the user ID"},
					{name: "expires", value: "T", usage: "when the key expires (default: never)"},
				},
				result: new(api.KeyInfo),
				run:    runKeyGenerate,
			},
			{
				name:     "export",
				usage:    "print the public key, armored",
				about:    "The key is snapd's, or that in the key file if --key-file or --config is given.",
				examples: []string{"snapctl key export > release.asc"},
				options:  []option{keyFileOption},
				result:   new(api.KeyInfo),
				run: func(ctx context.Context, c *call) error {
					k, err := c.keyInfo(ctx)
					if err != nil {
						return err
					}
					if k.Armored == "" {
						return errors.New("export key: snapd returned no certificate")
					}
					show(c.ui, k, func(k *api.KeyInfo) { c.ui.text(k.Armored) })
					return nil
				},
			},
			{
				name:     "show",
				usage:    "show the fingerprint, user ID and expiry of the key",
				about:    "The key is snapd's, or that in the key file if --key-file or --config is given.",
				examples: []string{"snapctl key show"},
				options:  []option{keyFileOption},
				result:   new(api.KeyInfo),
				run: func(ctx context.Context, c *call) error {
					k, err := c.keyInfo(ctx)
					if err != nil {
						return err
					}
					show(c.ui, k, c.ui.key)
					return nil
				},
			},
			{
				name:  "renew",
				usage: "change the expiry of the key",
				about: `renew writes new self-signatures to the key file; existing signatures by the key
remain valid. snapd reads the file when it starts.`,
				examples: []string{"snapctl key renew --config config.toml", "snapctl key renew --key-file signing-key.asc --expires 2036-01-01"},
				options: []option{
					keyFileOption,
					{name: "expires", value: "T", usage: "when the key expires (default: never)"},
				},
				result: new(api.KeyInfo),
				run:    runKeyRenew,
			},
		},
	}
}

// keyFile returns the path of the private key. external is set if signing.command is
// configured and the file has only the public key.
func (c *call) keyFile() (name string, external bool, err error) {
	if f := c.str("key-file"); f != "" {
		name, err = absolute(f)
		return name, false, err
	}
	if c.str("config") == "" {
		return defaultKeyFile, false, nil
	}
	cfg, err := c.config()
	if err != nil {
		return "", false, err
	}
	return cfg.Signing.KeyFile, len(cfg.Signing.Command) > 0, nil
}

// keyInfo describes the key in the given file or, without one, snapd's key.
func (c *call) keyInfo(ctx context.Context) (*api.KeyInfo, error) {
	if c.str("key-file") == "" && c.str("config") == "" {
		var k api.KeyInfo
		err := c.ask(ctx, "key/show", api.Empty{}, &k)
		if !errors.Is(err, client.ErrNoDaemon) {
			return &k, err
		}
		if _, statErr := os.Stat(defaultKeyFile); statErr != nil {
			return nil, err
		}
	}
	name, external, err := c.keyFile()
	if err != nil {
		return nil, err
	}
	if external {
		ring, err := sign.LoadKeyring(name)
		if err != nil {
			return nil, err
		}
		if ring.Len() != 1 {
			return nil, fmt.Errorf("read key %s: expected one certificate, found %d", name, ring.Len())
		}
		return describeKey(ring.Keys()[0], ring, name), nil
	}
	k, err := sign.LoadPrivateKey(name)
	if err != nil {
		return nil, err
	}
	return describeKey(k.Public(), k.Keyring(), name), nil
}

func describeKey(k sign.Key, ring *sign.Keyring, file string) *api.KeyInfo {
	out := &api.KeyInfo{Fingerprint: string(k.Fingerprint), UserID: k.UserID, Created: k.Created.UTC(), Algorithm: k.Algorithm, File: file, Armored: string(ring.ExportArmored())}
	if !k.Expires.IsZero() {
		t := k.Expires.UTC()
		out.Expires = &t
	}
	return out
}

// expires parses --expires; zero means never.
func (c *call) expires() (time.Time, error) {
	t, err := c.timestamp("expires")
	if err != nil || t == nil {
		return time.Time{}, err
	}
	if !t.After(c.p.now()) {
		return time.Time{}, c.usagef("--expires %s: the date has passed", timeText(*t))
	}
	return *t, nil
}

func runKeyGenerate(_ context.Context, c *call) error {
	name, external, err := c.keyFile()
	if err != nil {
		return err
	}
	if external {
		return errExternalKey
	}
	expires, err := c.expires()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("make key %s: %w", name, errKeyExists)
	}
	user := c.str("name")
	if user == "" {
		user = "snapd"
	}
	k, err := sign.Generate(user, c.str("email"), c.p.now().UTC().Truncate(time.Second), sign.GenerateOptions{Expires: expires})
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if err := writePrivate(name, k.Armored()); err != nil {
		return err
	}
	show(c.ui, describeKey(k.Public(), k.Keyring(), name), c.ui.key)
	return nil
}

func runKeyRenew(_ context.Context, c *call) error {
	name, external, err := c.keyFile()
	if err != nil {
		return err
	}
	if external {
		return errExternalKey
	}
	expires, err := c.expires()
	if err != nil {
		return err
	}
	k, err := sign.LoadPrivateKey(name)
	if err != nil {
		return err
	}
	if k, err = k.Renew(c.p.now().UTC().Truncate(time.Second), expires); err != nil {
		return fmt.Errorf("renew key %s: %w", name, err)
	}
	if err := writePrivate(name, k.Armored()); err != nil {
		return err
	}
	show(c.ui, describeKey(k.Public(), k.Keyring(), name), c.ui.key)
	return nil
}

func writePrivate(name string, data []byte) error {
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer root.Close()
	if err := replaceFile(root, filepath.Base(name), data, 0o600); err != nil {
		return fmt.Errorf("write key %s: %w", name, err)
	}
	return nil
}

var (
	// errKeyExists means that a key would be overwritten.
	errKeyExists = errors.New("the key already exists")
	// errExternalKey means that snapd cannot create or change the key.
	errExternalKey = errors.New("signing.command is configured: create and renew the key with that program")
)
