package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Installed is a package of a root file system.
type Installed struct {
	Name, Version, Architecture string
}

// maxStatus bounds the list of installed packages, in bytes.
const maxStatus = 64 << 20

// WriteTar writes the root file system of s to w as a tar stream, and returns the
// packages that are installed in it, by name. Cancelling ctx stops mmdebstrap.
func WriteTar(ctx context.Context, w io.Writer, s Spec, o Options) ([]Installed, error) {
	var status []byte
	err := install(ctx, &s, o, func(_ context.Context, stream io.Reader) (err error) {
		status, err = copyTar(&counter{w: w, tell: o.Progress}, stream)
		return err
	})
	if err != nil {
		return nil, err
	}
	list := parseStatus(status)
	if len(list) == 0 && s.Variant != "extract" && s.Variant != "custom" {
		return nil, fmt.Errorf("build image: %w: nothing was installed: the repositories have no essential package", ErrLacks)
	}
	return list, nil
}

// A counter reports how many bytes were written.
type counter struct {
	w    io.Writer
	n    int64
	tell func(int64)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	if c.tell != nil {
		c.tell(c.n)
	}
	return n, err
}

// copyTar copies a tar stream to its end, and returns the list of dpkg's packages
// in it.
func copyTar(w io.Writer, stream io.Reader) (status []byte, err error) {
	copied := io.TeeReader(stream, w)
	r := tar.NewReader(copied)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if path.Clean("/"+h.Name) != "/var/lib/dpkg/status" {
			continue
		}
		if status, err = io.ReadAll(io.LimitReader(r, maxStatus)); err != nil {
			return nil, err
		}
	}
	_, err = io.Copy(io.Discard, copied) // padding behind the archive
	return status, err
}

// parseStatus returns the installed packages of dpkg's list.
func parseStatus(status []byte) []Installed {
	var out []Installed
	for stanza := range bytes.SplitSeq(status, []byte("\n\n")) {
		var p Installed
		ok := false
		for line := range strings.Lines(string(stanza)) {
			field, value, _ := strings.Cut(line, ":")
			value = strings.TrimSpace(value)
			switch field {
			case "Package":
				p.Name = value
			case "Version":
				p.Version = value
			case "Architecture":
				p.Architecture = value
			case "Status":
				ok = strings.HasSuffix(value, " installed")
			}
		}
		if ok && p.Name != "" {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Installed) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Architecture, b.Architecture))
	})
	return out
}
