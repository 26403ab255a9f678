package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/daemon"
	"example.org/snapd/internal/errclass/errclasstest"
	"example.org/snapd/internal/migrate"
	"example.org/snapd/internal/mirror"
)

// TestHints checks the hint for each sentinel error that snapd itself prints. "backup"
// and "restore" get their hints as errors of the control API.
func TestHints(t *testing.T) {
	restored := func(err error) error {
		e, _ := control.Error(err)
		return newOutput(nil, nil, func(string) string { return "" }).refused(&api.RestoreResult{}, e)
	}
	damaged := func(err error) error {
		e, _ := control.Error(err)
		o := newOutput(nil, nil, func(string) string { return "" })
		o.json = true
		return o.refused(&api.RestoreResult{Faults: []api.VerifyFault{{Object: "blob", Message: "is damaged"}}}, e)
	}
	migrated := func(faults ...api.VerifyFault) func(error) error {
		return func(err error) error {
			e, _ := control.Error(err)
			o := newOutput(nil, nil, func(string) string { return "" })
			o.json = true
			return o.notMigrated(&api.MigrateResult{Faults: faults}, e)
		}
	}
	plain := func(err error) error { return err }
	seen := map[string]bool{}
	for _, c := range []struct {
		sentinel string
		err      error
		via      func(error) error
		exit     int
		hint     string
	}{
		{"daemon.ErrPort", daemon.ErrPort, plain, 1, "stop that program, or choose another address in the configuration: listen in [server], or in [api] for the control API"},
		{"mirror.ErrClock", mirror.ErrClock, plain, 1, "set the system clock, then start snapd again"},
		{"daemon.ErrRunning", daemon.ErrRunning, plain, 1, "stop it first, or give this one another data_dir"},
		{"daemon.ErrLost", daemon.ErrLost, plain, 1, ""},       // its message says what to do
		{"daemon.ErrForeign", daemon.ErrForeign, plain, 1, ""}, // likewise
		{"config.ErrInvalid", config.ErrInvalid, plain, 1, "see config.example.toml for every key"},
		{"backup.ErrRestoring", backup.ErrRestoring, plain, 1, "complete it with: snapd restore DIR"},
		{"backup.ErrBusy", backup.ErrBusy, restored, 1, ""},
		{"backup.ErrDamaged", backup.ErrDamaged, restored, 4, ""},
		{"backup.ErrDamaged", backup.ErrDamaged, damaged, 4, "restore another backup, or continue without these blobs: snapd restore --allow-damaged DIR"},
		{"backup.ErrDirectory", backup.ErrDirectory, restored, 1, "move the existing files away, or change the path in the configuration"},
		{"backup.ErrInDatabase", backup.ErrInDatabase, restored, 2, ""}, // its message says what to do
		{"backup.ErrFormat", backup.ErrFormat, restored, 1, ""},
		{"backup.ErrIncomplete", backup.ErrIncomplete, restored, 1, "complete it with: snapd backup DIR"},
		{"backup.ErrNoBackup", backup.ErrNoBackup, restored, 1, ""},
		{"migrate.ErrIncomplete", migrate.ErrIncomplete, plain, 1, "complete it with the same command: snapd --config SOURCE migrate --to CONFIG"},
		{"migrate.ErrSource", migrate.ErrSource, migrated(), 1, ""}, // its message says what to do
		{"migrate.ErrTarget", migrate.ErrTarget, migrated(), 1, ""}, // likewise
		{"migrate.ErrDamaged", migrate.ErrDamaged, migrated(), 4, ""},
		{"migrate.ErrDamaged", migrate.ErrDamaged, migrated(api.VerifyFault{Object: "blob", Message: "is missing"}), 4, "start snapd with the source and get them again with: snapctl fsck --repair; then stop it and repeat the migration"},
		{"backup.ErrNoSpace", backup.ErrNoSpace, restored, 1, ""},
	} {
		seen[c.sentinel] = true
		e, hint := describe(t.Context(), c.via(fmt.Errorf("do something: %w", c.err)))
		if e.Exit != c.exit || hint != c.hint {
			t.Errorf("%s: exit %d, hint %q, expected %d, %q", c.sentinel, e.Exit, hint, c.exit, c.hint)
		}
	}
	sentinels := errclasstest.Sentinels(t, "../..")
	for _, s := range sentinels {
		if (strings.HasPrefix(s, "daemon.") || strings.HasPrefix(s, "backup.") || strings.HasPrefix(s, "migrate.")) && !seen[s] {
			t.Errorf("%s has no row: say with which hint users meet it", s)
		}
	}
	for s := range seen {
		if !slices.Contains(sentinels, s) {
			t.Errorf("%s is no sentinel", s)
		}
	}
}
