package signature

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	two = "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU="
)

// What is signed here verifies with the library of the specification's authors, with each
// of several secrets, and no longer after a change.
func TestSign(t *testing.T) {
	k, err := parse("# replaced on Monday\n" + one + "\n\n" + two + "\r\n")
	if err != nil {
		t.Fatal(err)
	}
	const id = "EQ5H6BZ3MUHKHDH4N3S5FRTUYV"
	body := []byte(`{"type":"freeze"}`)
	h := http.Header{}
	timestamp, sig := k.Sign(id, time.Now(), body)
	h.Set(HeaderID, id)
	h.Set(HeaderTimestamp, timestamp)
	h.Set(HeaderSignature, sig)
	for _, secret := range []string{one, two} {
		wh, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := wh.Verify(body, h); err != nil {
			t.Errorf("%v: %s", err, sig)
		}
		if err := wh.Verify([]byte(`{"type":"freezE"}`), h); err == nil {
			t.Error("a changed body verifies")
		}
		late := h.Clone()
		late.Set(HeaderTimestamp, timestamp[:len(timestamp)-1]+"x")
		if err := wh.Verify(body, late); err == nil {
			t.Error("a changed timestamp verifies")
		}
	}
	wh, err := standardwebhooks.NewWebhook("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	if err != nil {
		t.Fatal(err)
	}
	if err := wh.Verify(body, h); err == nil {
		t.Error("another secret verifies")
	}
	if text := fmt.Sprintf("%v %+v %#v", k, k, *k); strings.Contains(text, "MfKQ") || strings.Contains(text, "bcdef") {
		t.Errorf("keys print their secrets: %s", text)
	}
}

// A file that is no good is refused, with what was expected and without quoting it.
func TestLoad(t *testing.T) {
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"good", one + "\n", 0o600, ""},
		{"readable by the group", one + "\n", 0o640, ""},
		{"readable by all", one + "\n", 0o644, "every user can read it (mode 0644), expected 0600 or 0640"},
		{"empty", "\n# nothing\n", 0o600, "the file has no secret"},
		{"a password", "hunter2hunter2hunter2\n", 0o600, "line 1 does not start with whsec_"},
		{"no base64", "\nwhsec_hunter2!\n", 0o600, "line 2 is not base64"},
		{"short", "whsec_aHVudGVyMg==\n", 0o600, "line 1 has 7 bytes: expected lines of whsec_"},
		{"long", "whsec_" + strings.Repeat("aHVu", 30) + "\n", 0o600, "line 1 has 90 bytes"},
		{"many", strings.Repeat(one+"\n", 5), 0o600, "the file has 5 secrets, expected at most 4"},
		{"large", strings.Repeat("#\n", 4096), 0o600, "too large"},
	} {
		file := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVu") || !strings.Contains(err.Error(), file)) {
			t.Errorf("%s: %v, expected %s", c.name, err, c.want)
		}
		if strings.Contains(c.want, "line") && !errors.Is(err, ErrSecret) {
			t.Errorf("%s: %v, expected ErrSecret", c.name, err)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
