package bolt_test

import (
	"fmt"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

const (
	mirrorName = "debian"
	suite      = repo.SuiteName("stable")
)

var (
	day     = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	indices = []string{"main/binary-amd64/Packages", "main/binary-all/Packages"}
)

// para is a stanza; its record follows from it.
type para struct{ name, version, note string }

func (p para) record() *repo.Record {
	text := fmt.Sprintf("Package: %s\nVersion: %s\nNote: %s\n", p.name, p.version, p.note)
	path := fmt.Sprintf("pool/%s_%s.deb", p.name, p.version)
	return &repo.Record{
		Kind: repo.KindBinary, Name: p.name, Version: p.version, Arch: "amd64", Bytes: []byte(text),
		Files: []repo.File{{Path: path, Size: 1, SHA256: cas.Sum([]byte(path))}},
	}
}
