package postgres_test

import (
	"testing"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/metatest"
	"example.org/snapd/internal/meta/postgres"
	"example.org/snapd/internal/meta/postgres/pgtest"
)

func TestContract(t *testing.T) {
	srv := pgtest.Start(t)
	url := srv.Database(t)
	s, err := postgres.Open(t.Context(), postgres.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	metatest.Run(t, func(t testing.TB, o metatest.Options) meta.Store {
		srv.Empty(t, url)
		s, err := postgres.Open(t.Context(), postgres.Options{URL: url, Fault: o.Fault, Twice: o.Twice, Page: o.Page, Connections: 8})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
