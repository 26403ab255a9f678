package postgres_test

import (
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/meta/postgres"
	"example.org/snapd/internal/meta/postgres/pgtest"
)

// A database of another machine is reached by TCP and with a password.
func TestRemote(t *testing.T) {
	srv := pgtest.Start(t)
	srv.Listen(t, "127.0.0.1", 0)
	url := pgtest.Remote(srv.Database(t), srv)
	for password, refused := range map[string]string{"": "password", "wrong": "password authentication failed", pgtest.Password: ""} {
		s, err := postgres.Open(t.Context(), postgres.Options{URL: url, Password: password})
		if err == nil {
			_, err = s.AcquireLease(t.Context(), "sync/debian", "one", time.Minute)
			s.Close()
		}
		if refused == "" && err != nil || refused != "" && (err == nil || !strings.Contains(err.Error(), refused)) {
			t.Errorf("password %q: %v, expected %q", password, err, refused)
		}
	}
}
