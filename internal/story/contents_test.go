package story

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// contentsOf returns a list of the files of many packages, of which 63 change from state to
// state.
func contentsOf(state int) []byte {
	const packages, files = 30_000, 24
	var b bytes.Buffer
	for f := range files {
		for p := range packages {
			path := fmt.Sprintf("usr/share/package%05d/%02d/%08x", p, f, uint32(p*files+f)*2654435761)
			if p%(packages/63) == 7 && state > 0 {
				path += fmt.Sprintf("-%d", state)
			}
			fmt.Fprintf(&b, "%-74s section/package-with-a-name-%d\n", path, p)
		}
	}
	return b.Bytes()
}

// The list of files of a large distribution, which is larger than what snapd keeps in
// memory, takes only as much space as its changes, and apt gets it from an old snapshot.
func TestHistoryOfContents(t *testing.T) {
	if testing.Short() {
		t.Skip("compresses 80 MB ten times")
	}
	needs.Programs(t, "apt-get", "gzip")
	const states, path = 3, "main/Contents-amd64"
	a, config := compressedAs(t, 1, map[string][]string{".gz": {"gzip", "-9n", "--rsyncable"}})
	a.Add(debtest.Package{Name: "app", Version: "1"})
	s := start(t, strings.Replace(config, "sources = true\n", "sources = true\ncontents = true\n", 1))
	begin := time.Now().UTC().Truncate(time.Second).Add(-states * time.Hour)
	var sums [][32]byte
	var packed int64
	for i := range states {
		plain := contentsOf(i)
		if len(plain) < 65<<20 {
			t.Fatalf("only %d bytes", len(plain))
		}
		cmd := exec.CommandContext(t.Context(), "gzip", "-9n", "--rsyncable")
		cmd.Stdin = bytes.NewReader(plain)
		gz, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sha256.Sum256(plain))
		packed = int64(len(gz))
		a.Default().Extra = map[string][]byte{path: plain, path + ".gz": gz}
		a.Publish(begin.Add(time.Duration(i) * time.Hour))
		s.Ctl("sync")
	}
	var gc api.GCResult
	// The first one is a difference to none.
	if s.JSON(&gc, "gc", "--compact"); gc.Indices != states-1 || gc.IndexBytes < packed*(states-1)*99/100 || gc.OrderBytes > packed+packed/500 {
		t.Errorf("compacted %+v; the gz has %d bytes", gc, packed)
	}
	var list api.SnapshotList
	s.JSON(&list, "list", "--mirror", "debian")
	slices.SortFunc(list.Snapshots, func(a, b api.Snapshot) int { return strings.Compare(a.ID, b.ID) })
	apt := debtest.NewApt(t, s.Ctl("sources", list.Snapshots[1].ID))
	target := `Acquire::IndexTargets::deb::Contents-deb { MetaKey "$(COMPONENT)/Contents-$(ARCHITECTURE)"; ShortDescription "Contents"; Description "$(RELEASE) Contents"; };`
	if err := os.WriteFile(filepath.Join(apt.Root, "etc/apt/apt.conf.d/50contents"), []byte(target), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := apt.Try("apt-get", "update"); err != nil || strings.Contains(out, "\nE:") || strings.Contains(out, "\nW:") {
		t.Fatalf("apt-get update: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(apt.Root, "var/lib/apt/lists/*_Contents-amd64"))
	if err != nil || len(files) != 1 {
		t.Fatalf("apt has %d lists of files: %v", len(files), err)
	}
	got, err := os.ReadFile(files[0])
	if err != nil || sha256.Sum256(got) != sums[1] {
		t.Errorf("apt got another list of files, of %d bytes: %v", len(got), err)
	}
	s.Ctl("fsck")
}
