package daemon

import (
	"context"
	"fmt"

	"example.org/snapd/internal/config"
)

// checkNames refuses a configured mirror with the name of a freeze, of one that was
// removed, or of a recording: they share one namespace. config.ErrInvalid.
func (d *daemon) checkNames(ctx context.Context, mirrors []config.Mirror) error {
	if d.store.Damage() != nil {
		return nil // what is lost cannot be compared, and fsck must be able to run
	}
	users, err := d.store.Users(ctx)
	if err != nil {
		return err
	}
	removed, err := d.store.Tombstones(ctx)
	if err != nil {
		return err
	}
	owners := map[string]string{}
	for _, stone := range removed {
		owners[stone.Name] = "a removed freeze"
	}
	for _, r := range users.Recordings {
		owners[r.Name] = "a recording"
	}
	for _, f := range users.Freezes {
		owners[f.Name] = "a freeze"
	}
	for _, m := range mirrors {
		if owner := owners[m.Name]; owner != "" {
			return fmt.Errorf("%w: mirror %s: its name is that of %s: expected another name", config.ErrInvalid, m.Name, owner)
		}
	}
	return nil
}
