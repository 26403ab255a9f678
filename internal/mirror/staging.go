package mirror

import (
	"context"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Limits of the records that wait between the reader of an index and the stage. Together
// they are about as many as a stage writes in one transaction, so that the reader can
// work during the transaction.
const (
	stagingBatches = 8
	stagingRecords = 512
	stagingBytes   = 1 << 20
)

// stageRecords stages the records that read passes to put. put copies them, and another
// goroutine stages them, so that reading and staging overlap.
func stageRecords(ctx context.Context, stage meta.Stage, read func(ctx context.Context, put func(context.Context, *repo.Record) error) error) error {
	s := &staging{
		stage: stage, batch: &recordBatch{},
		full: make(chan *recordBatch, stagingBatches), free: make(chan *recordBatch, stagingBatches),
		space: semaphore.NewWeighted(stagingBatches * stagingBytes),
	}
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error { return s.run(ctx) })
	eg.Go(func() error {
		if err := read(ctx, s.put); err != nil {
			return err // ctx ends, and with it run
		}
		if err := s.flush(ctx); err != nil {
			return err
		}
		close(s.full)
		return nil
	})
	return eg.Wait()
}

// staging passes records from the goroutine that reads an index to the one that stages
// them.
type staging struct {
	stage meta.Stage
	batch *recordBatch // of the reader
	full  chan *recordBatch
	free  chan *recordBatch
	space *semaphore.Weighted // bytes that may wait in full; a larger batch waits alone
}

// put copies a record, to be staged.
func (s *staging) put(ctx context.Context, r *repo.Record) error {
	s.batch.add(r)
	if len(s.batch.records) < stagingRecords && len(s.batch.bytes) < stagingBytes {
		return nil
	}
	return s.flush(ctx)
}

// flush passes on the copied records.
func (s *staging) flush(ctx context.Context) error {
	if err := s.space.Acquire(ctx, s.batch.weight()); err != nil {
		return err
	}
	select {
	case s.full <- s.batch:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case s.batch = <-s.free:
	default:
		s.batch = &recordBatch{}
	}
	return nil
}

// run stages records until full is closed or the context ends.
func (s *staging) run(ctx context.Context) error {
	for {
		var b *recordBatch
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b = <-s.full:
			if b == nil {
				return nil
			}
		}
		for i := range b.records {
			if err := s.stage.Add(ctx, &b.records[i]); err != nil {
				return err
			}
		}
		s.space.Release(b.weight())
		b.reset()
		select {
		case s.free <- b:
		default:
		}
	}
}

// recordBatch contains records and copies of their contents, in few allocations.
type recordBatch struct {
	records []repo.Record
	bytes   []byte
	files   []repo.File
	sources []repo.Ref
}

func (b *recordBatch) add(r *repo.Record) {
	c := *r
	n := len(b.bytes)
	b.bytes = append(b.bytes, r.Bytes...)
	c.Bytes = b.bytes[n:len(b.bytes):len(b.bytes)]
	n = len(b.files)
	b.files = append(b.files, r.Files...)
	c.Files = b.files[n:len(b.files):len(b.files)]
	n = len(b.sources)
	b.sources = append(b.sources, r.Sources...)
	c.Sources = b.sources[n:len(b.sources):len(b.sources)]
	b.records = append(b.records, c)
}

// weight is the share of staging.space that the batch takes.
func (b *recordBatch) weight() int64 { return int64(min(len(b.bytes), stagingBatches*stagingBytes)) }

func (b *recordBatch) reset() {
	clear(b.records)
	if cap(b.bytes) > 2*stagingBytes {
		b.bytes = nil // of a large record
	}
	b.records, b.bytes, b.files, b.sources = b.records[:0], b.bytes[:0], b.files[:0], b.sources[:0]
}
