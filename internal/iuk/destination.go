package iuk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// destination is the directory or file for kits.
type destination struct {
	name string
	dir  bool     // name is a directory, in which kits have their standard names
	made []string // directories that were created, parents first
}

// makeDestination determines the meaning of Output, and creates it if it is a
// directory.
func makeDestination(o CreateOptions) (*destination, error) {
	out := &destination{name: o.Output}
	st, err := os.Stat(o.Output)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	exists := err == nil
	out.dir = exists && st.IsDir() || len(o.From) > 1 || strings.HasSuffix(o.Output, string(filepath.Separator))
	switch {
	case exists && out.dir && !st.IsDir():
		return nil, fmt.Errorf("%s: expected a directory, found a file", o.Output)
	case exists:
		return out, nil
	case out.dir:
		return out, out.mkdir()
	}
	parent := filepath.Dir(o.Output)
	if st, err := os.Stat(parent); err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, fmt.Errorf("%s: expected a directory, found a file", parent)
	}
	return out, nil
}

func (o *destination) mkdir() error {
	for dir := filepath.Clean(o.name); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		o.made = append(o.made, dir)
	}
	slices.Reverse(o.made)
	if err := os.MkdirAll(o.name, 0o755); err != nil {
		o.abandon()
		return err
	}
	return nil
}

// abandon removes the directories that were created, if they are empty.
func (o *destination) abandon() {
	for _, dir := range slices.Backward(o.made) {
		if os.Remove(dir) != nil {
			return
		}
	}
}

// kit returns the name of the kit from old version i.
func (o *destination) kit(c CreateOptions, i int) string {
	if !o.dir {
		return o.name
	}
	return filepath.Join(o.name, KitName(c.Product, c.Arch, c.From[i].Version, c.To.Version))
}
