package meta

import (
	"slices"
	"time"

	"example.org/snapd/internal/repo"
)

// Limits of the snapshots that EarlierAlternateBases reads: in all, and in one
// transaction.
const (
	earlierSnapshots = 10_000
	earlierPage      = 100
)

// EarlierAlternateBases implements Notes.EarlierAlternateBases for an engine. page reads, in
// one transaction, at most n snapshots before a time, the newest first, and the generations
// that unread chooses from them. unread may be called again when a transaction is retried.
func EarlierAlternateBases(known []string, limit int, page func(before time.Time, n int, unread func([]*Snapshot) []SnapshotSuite) ([]*Snapshot, []*Generation, error)) (urls []string, err error) {
	type id struct {
		suite repo.SuiteName
		gen   uint32
	}
	seen := map[id]bool{}
	unread := func(snaps []*Snapshot) (suites []SnapshotSuite) {
		chosen := map[id]bool{}
		for _, s := range snaps {
			for _, e := range s.Suites {
				i := id{e.Suite, e.Gen}
				if !seen[i] && !chosen[i] {
					chosen[i] = true
					suites = append(suites, e)
				}
			}
		}
		return suites
	}
	var before time.Time
	for n := 0; n < earlierSnapshots && len(urls) < limit; {
		snaps, gens, err := page(before, earlierPage, unread)
		if err != nil {
			return nil, err
		}
		for _, g := range gens {
			seen[id{g.Suite, g.Gen}] = true
			for _, u := range g.AlternateBases {
				if len(urls) < limit && !slices.Contains(known, u) && !slices.Contains(urls, u) {
					urls = append(urls, u)
				}
			}
		}
		if len(snaps) == 0 {
			break
		}
		n += len(snaps)
		before = snaps[len(snaps)-1].Timestamp
	}
	return urls, nil
}
