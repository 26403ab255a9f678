package rpmmd

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"example.org/snapd/internal/excerpt"
)

// MaxDeltas limits the number of deltas in one document.
const MaxDeltas = 500_000

// Delta is a drpm, from which a client can make a package if it has an older one
// installed.
type Delta struct {
	Path     string // relative to the repository
	Size     int64  // bytes; -1 if it is missing
	Checksum Checksum
}

// ParseDeltas parses a prestodelta (or deltainfo) document.
func ParseDeltas(src io.Reader) ([]Delta, error) {
	var out []Delta
	r := newReader(src)
	if err := r.next(); err != nil {
		return nil, fmt.Errorf("prestodelta: %w", err)
	}
	if name := string(local(r.name)); r.kind != tokStart || name != "prestodelta" && name != "deltainfo" {
		return nil, fmt.Errorf("prestodelta: %w", r.fail("root element <%s>, expected <prestodelta> or <deltainfo>", quote(r.name)))
	}
	err := r.named("newpackage", func() error {
		return r.named("delta", func() error {
			d := Delta{Size: -1}
			err := r.children(func() error {
				name, typ := string(local(r.name)), r.attrString("type")
				switch name {
				case "filename", "size", "checksum":
				default:
					return r.skip()
				}
				v, err := r.content()
				if err != nil {
					return err
				}
				v = strings.TrimSpace(v)
				switch name {
				case "filename":
					d.Path, err = CleanHref(v)
				case "size":
					n, perr := strconv.ParseUint(v, 10, 62)
					if perr != nil {
						return r.fail("size %q", excerpt.Of(v))
					}
					d.Size = int64(n)
				case "checksum":
					d.Checksum, err = ParseChecksum(typ, v)
				}
				return err
			})
			if err != nil {
				return err
			}
			if d.Path == "" {
				return r.fail("a delta without a file name")
			}
			if len(out) == MaxDeltas {
				return fmt.Errorf("number of deltas %w of %d", ErrTooLarge, MaxDeltas)
			}
			out = append(out, d)
			return nil
		})
	})
	if err == nil {
		err = r.finish()
	}
	if err != nil {
		return nil, fmt.Errorf("prestodelta: %w", err)
	}
	return out, nil
}
