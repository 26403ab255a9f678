package httpd

import (
	"context"
	"net/http"
	"strings"
	"time"

	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/sequencer"
)

// logCheckpoint is where a checkpoint is, below /log/.
const logCheckpoint = "checkpoint"

// logKey has the public key of the log, and its signature by the signing key. Neither
// changes while the server runs.
type logKey struct{ key, signature *entity }

// newLogKey makes the answers for /log.vkey and /log.vkey.asc.
func (s *Server) newLogKey() *logKey {
	if s.cfg.TLog == nil || s.cfg.TLog.Key() == nil || s.cfg.Signer == nil {
		return nil
	}
	key := []byte(s.cfg.TLog.Key().Text + "\n")
	at := s.cfg.Signer.CreatedAt()
	sig, err := s.cfg.LogKeySignature, error(nil)
	if sig == nil {
		sig, err = s.cfg.Signer.SignDetached(key, at)
	}
	if err != nil {
		// If the signing command does not answer, serve without this signature.
		s.log.Error("the key of the transparency log is not signed", "err", err)
		return &logKey{key: newBytes(key, textPlain, at)}
	}
	return &logKey{newBytes(key, textPlain, at), newBytes(sig, "application/pgp-signature", at)}
}

// logEntry answers /log/…: tiles never change, the checkpoint does.
func (s *Server) logEntry(ctx context.Context, p string) (answer, error) {
	if s.cfg.TLog == nil {
		return answer{}, meta.ErrNotFound
	}
	if p == logCheckpoint {
		data, err := s.cfg.TLog.Checkpoint(ctx)
		if err != nil {
			return answer{}, err
		}
		return answer{entity: newBytes(data, textPlain, time.Time{}), volatile: true}, nil
	}
	data, err := s.cfg.TLog.Tile(ctx, p)
	if err != nil {
		return answer{}, err
	}
	e := newBytes(data, "application/octet-stream", time.Time{})
	e.control = cacheImmutable
	return answer{entity: e, volatile: true}, nil
}

// proofEntry answers with the proof of a subject of the log. If with is true, it includes
// the entry, which readers of this proof cannot compute.
func (s *Server) proofEntry(ctx context.Context, subject string, with bool) (answer, error) {
	if s.cfg.TLog == nil {
		return answer{}, meta.ErrNotFound
	}
	leaf, proof, err := s.cfg.TLog.Proof(ctx, subject)
	if err != nil {
		return answer{}, err
	}
	if with {
		proof.Extra = leaf
	}
	return answer{entity: newBytes(proof.Encode(), textPlain, time.Time{}), volatile: true}, nil
}

// frozenProof answers with the proof of a freeze. ok is false if p is not the path of a
// proof.
func (s *Server) frozenProof(ctx context.Context, f *meta.Frozen, p string) (a answer, ok bool, err error) {
	if p != freeze.ManifestFile+tlog.ProofSuffix {
		return a, false, nil
	}
	a, err = s.proofEntry(ctx, tlog.FreezeSubject(string(f.Name)), false)
	return a, true, err
}

// kitProof answers with the proof of a file below /iuk/. ok is false if p is not the path
// of a proof.
func (s *Server) kitProof(ctx context.Context, p string) (a answer, ok bool, err error) {
	file, ok := strings.CutSuffix(p, tlog.ProofSuffix)
	if !ok {
		return a, false, nil
	}
	k, err := s.meta.Kit(ctx, file)
	if err != nil {
		return a, false, nil // a file may itself have such a name
	}
	a, err = s.proofEntry(ctx, sequencer.KitSubject(k), false)
	return a, true, err
}

// archiveProof answers with the proof of the generation of a signed document below
// /archive/. ok is false if p is not the path of a proof: <archive>/<timestamp>/…
func (s *Server) archiveProof(ctx context.Context, p string) (a answer, ok bool, err error) {
	doc, ok := strings.CutSuffix(p, tlog.ProofSuffix)
	if !ok {
		return a, false, nil
	}
	mirror, rest, _ := strings.Cut(doc, "/")
	mirror = string(s.catalog.MirrorOf(mirror))
	timestamp, doc, _ := strings.Cut(rest, "/")
	at, err := time.Parse(meta.TimestampFormat, timestamp)
	if err != nil {
		return a, false, nil // `latest` and timestamps between snapshots are redirected
	}
	snap, err := s.meta.Snapshot(ctx, meta.MirrorName(mirror), at)
	if err != nil {
		return a, false, nil
	}
	for _, e := range snap.Suites {
		g, err := s.meta.Generation(ctx, meta.MirrorName(mirror), e.Suite, e.Gen)
		if err != nil {
			return a, true, err
		}
		if len(g.Docs) > 0 && rootDoc(g, doc) {
			a, err = s.proofEntry(ctx, tlog.SnapshotSubject(mirror, string(e.Suite), meta.FormatTimestamp(g.Timestamp)), true)
			return a, true, err
		}
	}
	return a, false, nil
}

// rootDoc reports whether a path is that of the document which the log entry names.
func rootDoc(g *meta.Generation, p string) bool {
	return g.Docs[0].Path == p
}

// handle answers /log.vkey and /log.vkey.asc.
func (k *logKey) handle(s *Server, signature bool) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w := rw.(*response)
		e := (*entity)(nil)
		if k != nil {
			if e = k.key; signature {
				e = k.signature
			}
		}
		if e == nil {
			s.notFound(w, r)
			return
		}
		s.serve(w, r, e, nil)
	}
}
