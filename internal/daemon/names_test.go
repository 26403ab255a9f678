package daemon

import (
	"errors"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta/bolt"
)

// A mirror cannot take the name of a freeze, also of one that was removed.
func TestMirrorNames(t *testing.T) {
	whole, _ := filled(t)
	cfg := copyData(t, whole)
	other := cfg.Mirrors[0]
	other.Name = "4.1"
	cfg.Mirrors = append(cfg.Mirrors, other)
	refuses := func(want string) {
		t.Helper()
		if err := refused(t, cfg); !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %q", err, want)
		}
	}
	refuses("mirror 4.1: the name is already that of a freeze: expected another name")
	st, err := bolt.Open(cfg.DataDir+"/meta.db", bolt.Options{MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(st.RemoveFreeze(t.Context(), "4.1", time.Now()), st.Close()); err != nil {
		t.Fatal(err)
	}
	refuses("mirror 4.1: the name is already that of a removed freeze: expected another name")
}
