package postgres

import (
	"context"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// States of a blob.
const (
	blobPresent   = 0
	blobCandidate = 1
	blobClaimed   = 2
)

// lockBlobs locks the rows of blobs that get a reference, until the transaction ends, and
// ends claims. It locks rows in the order of digests, so that writers cannot deadlock.
func (t *tx) lockBlobs(ctx context.Context, digests [][]byte) error {
	if len(digests) == 0 {
		return nil
	}
	_, err := t.exec(ctx, `insert into blob (sha256) select distinct d from unnest($1::bytea[]) d order by d
		on conflict (sha256) do update set state = $2, since = null where blob.state = $3`, digests, blobCandidate, blobClaimed)
	return err
}

// addRefs records that an owner needs blobs, and ends a collection's claims to them.
func (t *tx) addRefs(ctx context.Context, digests []cas.Digest, kind byte, owner []byte) error {
	if len(digests) == 0 {
		return nil
	}
	all := bytesOf(digests)
	if err := t.lockBlobs(ctx, all); err != nil {
		return err
	}
	_, err := t.exec(ctx, "insert into ref (sha256, kind, owner) select distinct d, $2::smallint, $3::bytea from unnest($1::bytea[]) d on conflict do nothing", all, int16(kind), owner)
	return err
}

// dropRefs removes references that addRefs recorded.
func (t *tx) dropRefs(ctx context.Context, digests []cas.Digest, kind byte, owner []byte) error {
	if len(digests) == 0 {
		return nil
	}
	all := bytesOf(digests)
	if _, err := t.exec(ctx, "delete from ref where sha256 = any($1) and kind = $2 and owner = $3", all, int16(kind), owner); err != nil {
		return err
	}
	return t.suspect(ctx, all)
}

// suspect makes blobs that lost a reference collection candidates.
func (t *tx) suspect(ctx context.Context, digests [][]byte) error {
	if len(digests) == 0 {
		return nil
	}
	_, err := t.exec(ctx, `insert into blob (sha256, state) select distinct d, $2::smallint from unnest($1::bytea[]) d order by d
		on conflict (sha256) do update set state = $2, since = null`, digests, blobCandidate)
	return err
}

// hasRef is the condition that the blob in row q.sha256 is referenced.
const hasRef = "(exists (select from ref where ref.sha256 = q.sha256) or exists (select from pfile where pfile.sha256 = q.sha256))"

// referenced returns which of the digests something refers to.
func (t *tx) referenced(ctx context.Context, digests [][]byte) (map[cas.Digest]bool, error) {
	out := map[cas.Digest]bool{}
	var sum []byte
	err := t.each(ctx, []any{&sum}, func() error { out[cas.Digest(sum)] = true; return nil },
		"select q.sha256 from unnest($1::bytea[]) q (sha256) where "+hasRef, digests)
	return out, err
}

// refs lists at most limit (0: all) references to each blob, by kind and owner.
func (t *tx) refs(ctx context.Context, digests [][]byte, limit int) (map[cas.Digest][]meta.Ref, error) {
	if limit <= 0 {
		limit = noLimit
	}
	out := map[cas.Digest][]meta.Ref{}
	var sum, owner []byte
	var kind int16
	err := t.each(ctx, []any{&sum, &kind, &owner}, func() error {
		out[cas.Digest(sum)] = append(out[cas.Digest(sum)], meta.Ref{Kind: byte(kind), Owner: string(owner)})
		return nil
	}, `select q.sha256, r.kind, r.owner from unnest($1::bytea[]) q (sha256), lateral (
			(select kind, owner from ref where ref.sha256 = q.sha256 order by kind, owner limit $2)
			union all
			(select distinct $3::smallint, int8send(pid) from pfile where pfile.sha256 = q.sha256 order by 2 limit $2)
			order by 1, 2 limit $2) r`, digests, limit, int16(meta.OwnerPackage))
	return out, err
}
