package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
)

// The keys of logs named after loopback addresses are not remembered, because two test
// servers on one machine are not a forgery.
func TestPinLog(t *testing.T) {
	state := t.TempDir()
	c := &call{p: &program{getenv: func(k string) string { return map[string]string{"XDG_STATE_HOME": state}[k] }}}
	pin := func(origin, key string) *api.VerifyResult {
		t.Helper()
		r := &api.VerifyResult{Log: &api.LogProof{Origin: origin, Key: origin + key}}
		if err := c.pinLog(r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	one, two := "+69172246+ASV2MkCKVBcknbm8XR7NTLYibNq243aUrDztDXv5bWHN", "+7254feb5+ASASE+KhZLz/G1NwItL81EUqUTBKRrmJcBUcPzBr9zH6"
	for _, origin := range []string{"127.0.0.1:8080/log", "127.1.2.3/log", "[::1]:8080/log", "[::ffff:127.0.0.1]:80/log", "localhost:8080/log"} {
		for _, key := range []string{one, two} {
			if r := pin(origin, key); r.Exit != api.ExitOK || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "loopback") {
				t.Errorf("%s: %+v", origin, r)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(state, "snapctl")); !os.IsNotExist(err) {
		t.Errorf("a key was remembered: %v", err)
	}
	if r := pin("snap.example.org/log", one); r.Exit != api.ExitOK || !strings.Contains(r.Notes[0], "remembered") {
		t.Errorf("%+v", r)
	}
}
