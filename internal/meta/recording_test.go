package meta_test

import (
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

func TestCanonicalRecording(t *testing.T) {
	e := func(mirrorName, path string, size int64, count int) meta.RecordEntry {
		return meta.RecordEntry{Mirror: meta.MirrorName(mirrorName), Path: path, Size: size, SHA256: cas.Sum([]byte(path)), Count: count, First: time.Unix(int64(count), 0)}
	}
	a, da := meta.CanonicalRecording([]meta.RecordEntry{e("m", "x", 1, 1), e("m", "a", 2, 1)})
	_, db := meta.CanonicalRecording([]meta.RecordEntry{e("m", "a", 2, 7), e("m", "x", 1, 2), e("m", "x", 1, 3)})
	if da != db {
		t.Error("order, counts or repetition change the canonical form")
	}
	want := "m\ta\t2\t" + cas.Sum([]byte("a")).String() + "\nm\tx\t1\t" + cas.Sum([]byte("x")).String() + "\n"
	if string(a) != want {
		t.Errorf("canonical form %q, expected %q", a, want)
	}
}
