// Package signature signs the deliveries of webhooks according to the Standard Webhooks
// specification (https://www.standardwebhooks.com): HMAC-SHA256 over the ID, the
// timestamp and the body, with secrets from a file.
package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/regfile"
)

// Headers of a delivery.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// ErrSecret means that a file has no usable secret.
var ErrSecret = errclass.New(errclass.Unavailable, "no usable webhook secret")

const (
	prefix   = "whsec_"
	minKey   = 24 // bytes, required by the specification
	maxKey   = 64
	maxFile  = 4 << 10
	maxKeys  = 4 // signatures of one delivery
	expected = "expected lines of whsec_ and the base64 of 24 to 64 random bytes, such as: echo whsec_$(openssl rand -base64 32)"
)

// Keys sign deliveries. They never print their content. Receivers accept a delivery if
// any one of its signatures is valid, so a secret can be replaced by using both for a
// while.
type Keys struct {
	keys func() [][]byte // a function prints as an address
}

// Load reads a file with one secret per line. Only its owner and group may be able to
// read it.
func Load(name string) (*Keys, error) {
	f, err := regfile.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s: every user can read it (mode %04o), expected 0600 or 0640 (chmod o= %s)", name, st.Mode().Perm(), name)
	}
	data, err := regfile.ReadAll(f, name, maxFile)
	if err != nil {
		return nil, err
	}
	k, err := parse(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return k, nil
}

// parse reads secrets. Errors do not quote them.
func parse(text string) (*Keys, error) {
	var keys [][]byte
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		encoded, ok := strings.CutPrefix(line, prefix)
		if !ok {
			return nil, fmt.Errorf("%w: line %d does not start with %s: %s", ErrSecret, i+1, prefix, expected)
		}
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d is not base64: %s", ErrSecret, i+1, expected)
		}
		if len(key) < minKey || len(key) > maxKey {
			return nil, fmt.Errorf("%w: line %d has %d bytes: %s", ErrSecret, i+1, len(key), expected)
		}
		keys = append(keys, key)
	}
	switch {
	case len(keys) == 0:
		return nil, fmt.Errorf("%w: the file has no secret: %s", ErrSecret, expected)
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("%w: the file has %d secrets, expected at most %d", ErrSecret, len(keys), maxKeys)
	}
	return &Keys{func() [][]byte { return keys }}, nil
}

// Sign returns the values of HeaderTimestamp and HeaderSignature for a delivery that is
// sent at a given time.
func (k *Keys) Sign(id string, at time.Time, body []byte) (timestamp, signature string) {
	timestamp = strconv.FormatInt(at.Unix(), 10)
	var all []string
	for _, key := range k.keys() {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(id + "." + timestamp + "."))
		h.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return timestamp, strings.Join(all, " ")
}
