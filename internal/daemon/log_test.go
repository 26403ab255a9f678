package daemon

import (
	"os"
	"strings"
	"testing"

	"example.org/snapd/internal/tlog"
)

// A log key of another log than the configuration makes is refused, with the value
// that keeps the log.
func TestOtherLogKey(t *testing.T) {
	cfg := testConfig(t, "")
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tlog.LoadOrMakeKey(cfg.Log.KeyFile, "mirror.example.org:8080/log"); err != nil {
		t.Fatal(err)
	}
	if err := refused(t, cfg); !strings.Contains(err.Error(), `public_url or listen in [server] makes it `) || !strings.Contains(err.Error(), `set origin = "mirror.example.org:8080/log" in [log]`) {
		t.Errorf("says %q", err)
	}
	cfg.Log.Origin = "mirror.example.org:8080/log"
	start(t, cfg).end()
}
