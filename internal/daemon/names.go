package daemon

import (
	"context"
	"fmt"

	"example.org/snapd/internal/config"
)

// checkNames returns config.ErrInvalid if a configured mirror has the name of a freeze
// (even a removed one) or of a recording: all share one namespace.
func (d *daemon) checkNames(ctx context.Context, mirrors []config.Mirror) error {
	if d.store.Damage() != nil {
		return nil // lost names cannot be compared, and fsck must be able to run
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
		owners[string(f.Name)] = "a freeze"
	}
	for _, m := range mirrors {
		if owner := owners[string(m.Name)]; owner != "" {
			return fmt.Errorf("%w: mirror %s: the name is already that of %s: expected another name", config.ErrInvalid, m.Name, owner)
		}
	}
	return nil
}
