package sign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	commandTimeout = 2 * time.Minute
	maxCommandOut  = 64 << 10 // bytes of a signature
)

// CommandOptions adjust how an external command signs.
type CommandOptions struct {
	Timeout time.Duration // time limit for one signature; zero: 2 minutes
	// AnyTime accepts signatures with a different date than requested, from
	// commands that cannot choose it. Signed files are then not reproducible.
	AnyTime bool
}

// command is an external signer: a program that reads data on standard input and
// writes a detached signature, armored or binary, to standard output.
type command struct {
	argv []string
	opts CommandOptions
}

// NewCommandSigner returns a signer that runs argv for each signature, so that
// the key can be kept elsewhere. public is the certificate, with one key, armored
// or binary; every signature is checked with it.
//
// The command reads the data to sign from standard input, and has in its
// environment
//
//	SNAPD_SIGN_TYPE        "binary" or "text": the requested type of signature
//	SNAPD_SIGN_TIME        its date, in seconds since 1970
//	SNAPD_SIGN_FINGERPRINT the fingerprint of the primary key
//
// It writes one detached signature that uses SHA-256 or stronger to standard
// output. A signature of type text is always accepted in place of a binary one,
// so this is enough for GnuPG:
//
//	sh -c 'exec gpg --batch --textmode --faked-system-time "$SNAPD_SIGN_TIME!" -u "$SNAPD_SIGN_FINGERPRINT" --detach-sign'
func NewCommandSigner(argv []string, public []byte, opts CommandOptions) (*Signer, error) {
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("signing command is empty")
	}
	c, err := onlyCertificate(public)
	if err != nil {
		return nil, fmt.Errorf("public key of the signing command: %w", err)
	}
	if opts.Timeout == 0 {
		opts.Timeout = commandTimeout
	}
	return &Signer{cert: c, command: &command{argv: append([]string(nil), argv...), opts: opts}}, nil
}

// onlyCertificate parses one certificate, armored or binary.
func onlyCertificate(public []byte) (*cert, error) {
	kr, err := ParseKeyring(public)
	if err != nil {
		return nil, err
	}
	if kr.Len() != 1 {
		return nil, fmt.Errorf("%w: %d certificates, expected one", ErrMalformed, kr.Len())
	}
	c := kr.certs[0]
	c.evaluate()
	return c, nil
}

// sign runs the command and returns its binary signature packet.
func (c *command) sign(data []byte, at time.Time, text bool, fpr string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.opts.Timeout)
	defer cancel()
	typ := "binary"
	if text {
		typ = "text"
	}
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Env = append(os.Environ(), "SNAPD_SIGN_TYPE="+typ, "SNAPD_SIGN_TIME="+strconv.FormatInt(at.Unix(), 10), "SNAPD_SIGN_FINGERPRINT="+fpr)
	cmd.Stdin = bytes.NewReader(data)
	var stdout, stderr bounded
	stdout.max, stderr.max = maxCommandOut, 4096
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	// The command may be a shell: kill its children with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no signature within %v", c.opts.Timeout)
		}
		if line := firstLine(stderr.b); line != "" {
			return nil, fmt.Errorf("signing command %s: %w: %s", c.argv[0], err, line)
		}
		return nil, fmt.Errorf("signing command %s: %w", c.argv[0], err)
	}
	if stdout.over {
		return nil, fmt.Errorf("signing command %s: %w: more than %d bytes", c.argv[0], ErrMalformed, maxCommandOut)
	}
	sigs, err := parseDetached(stdout.b, false)
	if err != nil {
		return nil, fmt.Errorf("signing command %s: %w", c.argv[0], err)
	}
	if len(sigs) != 1 {
		return nil, fmt.Errorf("signing command %s: %w: %d signatures, expected one", c.argv[0], ErrMalformed, len(sigs))
	}
	body := stdout.b
	if body[0]&0x80 == 0 {
		b, _, err := nextArmor(body)
		if err != nil {
			return nil, err
		}
		body = b.body
	}
	return body, nil
}

// check checks the type and date of a valid signature.
func (c *command) check(sig []byte, v Verified, at time.Time, typ packet.SignatureType) error {
	m, err := parseSignatures(sig)
	if err != nil {
		return err
	}
	if m[0].sig == nil {
		return fmt.Errorf("signing command %s: %w: a version 3 signature, expected version 4", c.argv[0], ErrMalformed)
	}
	if typ == packet.SigTypeText && m[0].sig.SigType != packet.SigTypeText {
		return fmt.Errorf("signing command %s: %w: a binary signature, expected one of type text (gpg --textmode)", c.argv[0], ErrMalformed)
	}
	if got := v.Good[0].Created; !c.opts.AnyTime && !got.Equal(at) {
		return fmt.Errorf("signing command %s: the signature is dated %s, expected %s (SNAPD_SIGN_TIME)", c.argv[0], stamp(got), stamp(at))
	}
	return nil
}

// bounded keeps the first max bytes that are written to it.
type bounded struct {
	b    []byte
	max  int
	over bool
}

func (w *bounded) Write(p []byte) (int, error) {
	if room := w.max - len(w.b); len(p) > room {
		w.b, w.over = append(w.b, p[:room]...), true
	} else {
		w.b = append(w.b, p...)
	}
	return len(p), nil
}
