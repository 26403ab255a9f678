package build

import (
	"context"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// sink stores the files of a derived repository as blobs of a batch, and collects
// the nodes of their tree.
type sink struct {
	mirror meta.MirrorName
	batch  cas.Batch
	date   time.Time

	mu    sync.Mutex
	nodes []meta.Node
}

func (s *sink) add(path string, d cas.Digest, size int64) repo.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = append(s.nodes, meta.Node{Path: string(s.mirror) + "/" + path, Digest: d, Size: size, ModTime: s.date})
	return repo.File{Path: path, Size: size, SHA256: d}
}

// Put implements repo.Sink.
func (s *sink) Put(ctx context.Context, path string, data []byte) (repo.File, error) {
	info, err := cas.PutBatch(ctx, s.batch, data, s.date)
	if err != nil {
		return repo.File{}, err
	}
	return s.add(path, info.Digest, info.Size), nil
}

// Create implements repo.Sink.
func (s *sink) Create(ctx context.Context, path string) (repo.SinkWriter, error) {
	w, err := s.batch.Create(ctx)
	if err != nil {
		return nil, err
	}
	return &sinkWriter{w, s, path}, nil
}

// Link implements repo.Sink.
func (s *sink) Link(_ context.Context, path string, f repo.File) error {
	s.add(path, f.SHA256, f.Size)
	return nil
}

type sinkWriter struct {
	w    cas.BlobWriter
	s    *sink
	path string
}

func (w *sinkWriter) Write(p []byte) (int, error) { return w.w.Write(p) }
func (w *sinkWriter) Abort()                      { w.w.Abort() }
func (w *sinkWriter) Commit() (repo.File, error) {
	info, err := w.w.Commit(cas.Digest{}, -1, w.s.date)
	if err != nil {
		return repo.File{}, err
	}
	return w.s.add(w.path, info.Digest, info.Size), nil
}
