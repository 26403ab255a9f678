package deb

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/deb822"
)

const (
	// maxControlTar bounds the plain control.tar of a package, in bytes; maxControl
	// its control file.
	maxControlTar = 64 << 20
	maxControl    = maxStanza
	arMagic       = "!<arch>\n"
)

// readDeb reads a package to its end (deb(5)) and returns its control file. It
// expects dpkg's members in dpkg's order, and refuses missing and excess bytes.
func readDeb(r io.Reader) (control deb822.Stanza, err error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf(format+": %w", append(args, repo.ErrMalformed)...)
	}
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil && !cut(err) {
		return control, err
	} else if err != nil || string(magic) != arMagic {
		return control, bad("it begins with %q, expected an ar archive", excerpt.Of(string(magic)))
	}
	found := false
	for n := 0; ; n++ {
		name, size, err := arHeader(r)
		if err == io.EOF {
			break
		} else if err != nil {
			return control, err
		}
		body := &io.LimitedReader{R: r, N: size}
		switch {
		case n == 0:
			version := make([]byte, min(size, 4))
			if _, err := io.ReadFull(body, version); err != nil || name != "debian-binary" || !bytes.HasPrefix(version, []byte("2.")) {
				return control, bad("its first member is %s, version %q, expected debian-binary 2.0", excerpt.Of(name), excerpt.Of(string(version)))
			}
		case strings.HasPrefix(name, "_"):
		case !found:
			if control, err = readControl(name, body); err != nil {
				return control, err
			}
			found = true
		case !strings.HasPrefix(name, "data.tar"):
			return control, bad("member %s where data.tar is expected", excerpt.Of(name))
		default:
			if err := skipMember(body, size); err != nil {
				return control, err
			}
			return control, atEnd(r)
		}
		if err := skipMember(body, size); err != nil {
			return control, err
		}
	}
	return control, bad("it ends before data.tar")
}

// arHeader reads the header of a member.
func arHeader(r io.Reader) (name string, size int64, err error) {
	var h [60]byte
	if _, err := io.ReadFull(r, h[:]); err == io.EOF {
		return "", 0, io.EOF
	} else if cut(err) {
		return "", 0, fmt.Errorf("it ends inside of a member's header: %w", repo.ErrMalformed)
	} else if err != nil {
		return "", 0, err
	}
	size, err = strconv.ParseInt(strings.TrimSpace(string(h[48:58])), 10, 64)
	if err != nil || size < 0 || size > maxFile || string(h[58:]) != "`\n" {
		return "", 0, fmt.Errorf("the header of a member is %q: %w", excerpt.Of(string(h[:])), repo.ErrMalformed)
	}
	return strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/"), size, nil
}

// skipMember reads the rest of a member, and the padding after it.
func skipMember(body *io.LimitedReader, size int64) error {
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	if body.N > 0 {
		return fmt.Errorf("it ends %d bytes before the end of a member: %w", body.N, repo.ErrMalformed)
	}
	if size%2 == 1 {
		var pad [1]byte
		if _, err := io.ReadFull(body.R, pad[:]); err != nil && !cut(err) {
			return err
		}
	}
	return nil
}

// atEnd checks that data.tar is followed only by members that dpkg ignores.
func atEnd(r io.Reader) error {
	for {
		name, size, err := arHeader(r)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case !strings.HasPrefix(name, "_"):
			return fmt.Errorf("member %s after data.tar: %w", excerpt.Of(name), repo.ErrMalformed)
		}
		if err := skipMember(&io.LimitedReader{R: r, N: size}, size); err != nil {
			return err
		}
	}
}

func cut(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }

// readControl reads the control file in control.tar.
func readControl(name string, r io.Reader) (s deb822.Stanza, err error) {
	if plain, _ := splitVariant(name); plain != "control.tar" {
		return s, fmt.Errorf("its second member is %s, expected control.tar: %w", excerpt.Of(name), repo.ErrMalformed)
	}
	plain, err := Format{}.Decode(name, r)
	if err != nil {
		return s, err
	}
	defer plain.Close()
	limited := &io.LimitedReader{R: plain, N: maxControlTar}
	for t := tar.NewReader(limited); ; {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return s, fmt.Errorf("%s has no control file: %w", name, repo.ErrMalformed)
		case err != nil && limited.N == 0:
			return s, fmt.Errorf("%s unpacks to more than %d bytes: %w", name, maxControlTar, repo.ErrMalformed)
		case err != nil:
			return s, fmt.Errorf("%s: %w: %w", name, repo.ErrMalformed, err)
		}
		if path.Clean("/"+h.Name) != "/control" {
			continue
		}
		if h.Typeflag != tar.TypeReg || h.Size > maxControl {
			return s, fmt.Errorf("%s: control is not a regular file of at most %d bytes: %w", name, maxControl, repo.ErrMalformed)
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return s, fmt.Errorf("%s: control: %w: %w", name, repo.ErrMalformed, err)
		}
		all, err := deb822.ParseFile(data)
		if err != nil {
			return s, fmt.Errorf("control: %w: %w", repo.ErrMalformed, err)
		}
		if len(all) != 1 {
			return s, fmt.Errorf("control has %d stanzas, expected 1: %w", len(all), repo.ErrMalformed)
		}
		return all[0], nil
	}
}
