package bolt

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"example.org/snapd/internal/meta"
)

// Names of values in the bucket "meta".
const (
	idKey    = "installation.id"
	epochKey = "installation.epoch"
	cleanKey = "clean"
	cleanYes = "yes"
	cleanNo  = "no"
)

// Identity implements meta.Installation.
func (s *Store) Identity(ctx context.Context) (id meta.Identity, err error) {
	err = s.view(ctx, func(tx *txn) (err error) {
		id = meta.Identity{ID: tx.Meta(idKey), Torn: tx.Torn(), Empty: tx.Unreferenced()}
		if text := tx.Meta(epochKey); text != "" {
			if id.Epoch, err = strconv.ParseInt(text, 10, 64); err != nil {
				return fmt.Errorf("%w: epoch %q", meta.ErrCorrupt, text)
			}
		}
		return nil
	})
	return id, err
}

// SetEpoch implements meta.Installation.
func (s *Store) SetEpoch(ctx context.Context, id string, epoch int64, knownSince time.Time) error {
	return s.updateDamaged(ctx, "epoch", func(tx *txn) error {
		err := errors.Join(tx.SetMeta(idKey, id), tx.SetMeta(epochKey, strconv.FormatInt(epoch, 10)))
		if err == nil && !knownSince.IsZero() {
			err = tx.SetKnownSince(knownSince)
		}
		return err
	})
}

// SetClean implements meta.Installation.
func (s *Store) SetClean(ctx context.Context, clean bool) (before bool, err error) {
	value := cleanNo
	if clean {
		value = cleanYes
	}
	err = s.updateDamaged(ctx, "clean", func(tx *txn) error {
		before = tx.Meta(cleanKey) != cleanNo
		return tx.SetMeta(cleanKey, value)
	})
	return before, err
}

// NameOnce implements meta.Installation.
func (s *Store) NameOnce(ctx context.Context, name, value string) (have string, err error) {
	if have, err = s.Note(ctx, name); err != nil || have != "" {
		return have, err
	}
	err = s.update(ctx, "name "+name, func(tx *txn) error {
		if have = tx.Meta(name); have != "" {
			return nil
		}
		have = value
		return tx.SetMeta(name, value)
	})
	return have, err
}
