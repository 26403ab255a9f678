package postgres_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"example.org/snapd/internal/meta/compact"
	"example.org/snapd/internal/meta/postgres"
	"example.org/snapd/internal/meta/postgres/pgtest"
	"example.org/snapd/internal/repo"
)

// The migration of a database with schema 2 adds the source packages of its stanzas.
func TestMigrateSources(t *testing.T) {
	srv := pgtest.Start(t)
	url := srv.Database(t)
	ctx := t.Context()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := pgx.Connect(ctx, url)
	fail(err)
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := db.Exec(ctx, sql, args...)
		fail(err)
	}
	for _, file := range []string{"0001.sql", "0002.sql"} {
		text, err := os.ReadFile("migrations/" + file)
		fail(err)
		exec(string(text))
	}
	exec("create table schema_version (version integer not null)")
	exec("insert into schema_version values (1), (2)")
	exec("insert into mirror (name) values ('debian'), ('other')")
	var want []string
	var rows [][]any
	for mirror := range 2 {
		for i := range 3000 {
			name := fmt.Sprintf("p%04d", i)
			if mirror == 0 {
				want = append(want, "src-"+name)
			}
			digest := [16]byte{byte(mirror), byte(i), byte(i >> 8)}
			doc, err := compact.Fact(&repo.Record{Kind: repo.KindBinary, Name: name, Version: "1", Arch: "amd64", Sources: []repo.Ref{{Name: "src-" + name, Version: "1"}}}, digest)
			fail(err)
			rows = append(rows, []any{int32(mirror + 1), int64(mirror+1)<<40 | int64(i+1), []byte(name), digest[:], int64(1), doc})
		}
	}
	_, err = db.CopyFrom(ctx, pgx.Identifier{"fact"}, []string{"mirror", "pid", "name", "digest", "block", "doc"}, pgx.CopyFromRows(rows))
	fail(err)
	fail(db.Close(ctx))
	s, err := postgres.Open(ctx, postgres.Options{URL: url})
	fail(err)
	names, err := s.SourceNames(ctx, "debian", "", 10_000)
	if fail(err); !slices.Equal(names, want) {
		t.Errorf("%d sources, expected %d", len(names), len(want))
	}
	facts, err := s.FactsBySource(ctx, "other", []string{"src-p2999"})
	if fail(err); len(facts[0]) != 1 || facts[0][0].Name != "p2999" {
		t.Errorf("src-p2999: %v", facts[0])
	}
	fail(s.Close())
}
