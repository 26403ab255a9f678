package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// recordingStage keeps what is added, and fails at one of the records.
type recordingStage struct {
	meta.Stage
	added  []repo.Record
	failAt int
	err    error
}

func (s *recordingStage) Add(_ context.Context, r *repo.Record) error {
	if s.err != nil && len(s.added) == s.failAt {
		return s.err
	}
	c := *r
	c.Bytes, c.Files, c.Sources = bytes.Clone(r.Bytes), append([]repo.File{}, r.Files...), append([]repo.Ref{}, r.Sources...)
	s.added = append(s.added, c)
	return nil
}

// readNumbered passes n records to put. It uses the same memory for each, as formats do.
func readNumbered(n int) (func(context.Context, func(context.Context, *repo.Record) error) error, []repo.Record) {
	want := make([]repo.Record, n)
	for i := range want {
		want[i] = repo.Record{Name: fmt.Sprint("p", i), Bytes: bytes.Repeat([]byte{byte(i)}, i%5000),
			Files: make([]repo.File, i%3), Sources: make([]repo.Ref, i%2)}
		for j := range want[i].Files {
			want[i].Files[j].Path = fmt.Sprint(i, "/", j)
		}
		for j := range want[i].Sources {
			want[i].Sources[j].Name = fmt.Sprint("s", i)
		}
	}
	return func(ctx context.Context, put func(context.Context, *repo.Record) error) error {
		var buf []byte
		var files [3]repo.File
		for _, w := range want {
			buf = append(buf[:0], w.Bytes...)
			w.Bytes, w.Files = buf, files[:copy(files[:], w.Files)]
			if err := put(ctx, &w); err != nil {
				return err
			}
		}
		return nil
	}, want
}

func TestStageRecords(t *testing.T) {
	for _, n := range []int{0, 1, 511, 512, 513, 6000} {
		read, want := readNumbered(n)
		stage := &recordingStage{}
		if err := stageRecords(t.Context(), stage, read); err != nil {
			t.Fatalf("%d records: %v", n, err)
		}
		if len(stage.added) != n {
			t.Fatalf("%d of %d records were staged", len(stage.added), n)
		}
		for i := range want {
			w, got := want[i], stage.added[i]
			if got.Name != w.Name || !bytes.Equal(got.Bytes, w.Bytes) || !slices.Equal(got.Files, w.Files) || !slices.Equal(got.Sources, w.Sources) {
				t.Fatalf("record %d of %d: %+v, want %+v", i, n, got, w)
			}
		}
	}
}

func TestStageRecordsFails(t *testing.T) {
	broken := errors.New("disk full")
	for _, failAt := range []int{0, 700, 5999} { // early: the reader waits; last: it has ended
		read, _ := readNumbered(6000)
		if err := stageRecords(t.Context(), &recordingStage{failAt: failAt, err: broken}, read); !errors.Is(err, broken) {
			t.Errorf("the stage fails at record %d: %v", failAt, err)
		}
	}

	read, _ := readNumbered(700)
	malformed := errors.New("malformed index")
	err := stageRecords(t.Context(), &recordingStage{}, func(ctx context.Context, put func(context.Context, *repo.Record) error) error {
		if err := read(ctx, put); err != nil {
			return err
		}
		return malformed
	})
	if !errors.Is(err, malformed) {
		t.Errorf("the reader fails: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	read, _ = readNumbered(6000)
	err = stageRecords(ctx, &recordingStage{}, func(ctx context.Context, put func(context.Context, *repo.Record) error) error {
		cancel()
		return read(ctx, put)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// However large the records are, a stage that is slow lets only a few MiB of them wait.
func TestStageRecordsBounded(t *testing.T) {
	const size = 4 << 20
	synctest.Test(t, func(t *testing.T) {
		stage := &slowStage{recordingStage{}, make(chan struct{})}
		n := 0
		done := make(chan error)
		go func() {
			done <- stageRecords(t.Context(), stage, func(ctx context.Context, put func(context.Context, *repo.Record) error) error {
				for n < 20 {
					if err := put(ctx, &repo.Record{Bytes: make([]byte, size)}); err != nil {
						return err
					}
					n++
				}
				return nil
			})
		}()
		synctest.Wait()
		if most := stagingBatches*stagingBytes/size + 2; n > most {
			t.Errorf("%d records of %d bytes wait, expected at most %d", n, size, most)
		}
		close(stage.resume)
		if err := <-done; err != nil || len(stage.added) != 20 {
			t.Errorf("%d of 20 records were staged: %v", len(stage.added), err)
		}
	})
}

// slowStage waits before it adds records.
type slowStage struct {
	recordingStage
	resume chan struct{}
}

func (s *slowStage) Add(ctx context.Context, r *repo.Record) error {
	<-s.resume
	return s.recordingStage.Add(ctx, r)
}
