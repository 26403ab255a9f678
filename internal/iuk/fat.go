package iuk

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrFAT means that a kit's overlay would not be possible on FAT32.
var ErrFAT = errors.New("not possible on a FAT32 system partition")

// checkPath returns an error unless p is a clean relative path that is possible on
// FAT32.
func checkPath(p string) error {
	if p == "" || p != path.Clean(p) || path.IsAbs(p) || p == "." || p == ".." || strings.HasPrefix(p, "../") {
		return fmt.Errorf("path %q is not clean and relative", p)
	}
	for e := range strings.SplitSeq(p, "/") {
		if !utf8.ValidString(e) || len(utf16.Encode([]rune(e))) > 255 ||
			strings.HasSuffix(e, ".") || strings.HasSuffix(e, " ") ||
			strings.ContainsFunc(e, func(r rune) bool { return r < 0x20 || r == 0x7f || strings.ContainsRune(`"*:<>?\|`, r) }) {
			return fmt.Errorf("path %q is not possible on FAT32", p)
		}
	}
	if e, _, _ := strings.Cut(p, "/"); fold(e) == fold(stateDir) {
		return fmt.Errorf("path %q is reserved", p)
	}
	return nil
}

var devices = []string{
	"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$",
	"COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8", "COM9", "COM¹", "COM²", "COM³",
	"LPT1", "LPT2", "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9", "LPT¹", "LPT²", "LPT³",
}

// checkDevice returns an error if an element of p is a device name of DOS and Windows,
// with any extension. Linux can write such names, so existing kits that have them can
// be applied, but Create makes no such kits.
func checkDevice(p string) error {
	for e := range strings.SplitSeq(p, "/") {
		name, _, _ := strings.Cut(e, ".")
		name = fold(strings.TrimRight(name, " "))
		if slices.Contains(devices, name) {
			return fmt.Errorf("path %q: %s is the name of a device", p, name)
		}
	}
	return nil
}

// fold returns the same string for all paths that are one file on FAT32.
func fold(p string) string { return strings.ToUpper(strings.ToLower(p)) }

// overlayNames checks the paths of an overlay against each other.
type overlayNames map[string]string // by the folded path

// add checks one more path.
func (n overlayNames) add(p string) error {
	if err := checkPath(p); err != nil {
		return err
	}
	if strings.Count(p, "/") >= maxKitDepth {
		return fmt.Errorf("%q is more than %d levels deep", p, maxKitDepth)
	}
	if len(n) == maxKitFiles {
		return fmt.Errorf("more than %d files", maxKitFiles)
	}
	f := fold(p)
	if other, ok := n[f]; ok {
		return fmt.Errorf("%q and %q are one file on FAT32", other, p)
	}
	n[f] = p
	if f == fold(baseImage) || f == fold(moduleFile) {
		return fmt.Errorf("a kit must not replace %q", p)
	}
	return nil
}

// checkMembers returns an error that wraps ErrFAT unless the overlay of these members
// is possible on FAT32.
func checkMembers(members []kitMember) error {
	names := overlayNames{}
	for _, m := range members {
		p, ok := strings.CutPrefix(m.name, "overlay/")
		if !ok {
			continue
		}
		err := names.add(p)
		if err == nil {
			err = checkDevice(p)
		}
		if err == nil && m.size > maxFATFile {
			err = fmt.Errorf("%q has %d bytes, a file at most %d", p, m.size, int64(maxFATFile))
		}
		if err != nil {
			return fmt.Errorf("overlay: %w: %w", err, ErrFAT)
		}
	}
	return nil
}

// findPath returns the path in an image that is the same file as name on FAT32: its
// case may differ. It is an error if there are two.
func findPath(fsys fs.FS, name string) (string, error) {
	dir := "."
	for e := range strings.SplitSeq(name, "/") {
		list, err := fs.ReadDir(fsys, dir)
		if err != nil {
			return "", err
		}
		found := ""
		for _, d := range list {
			if fold(d.Name()) != fold(e) {
				continue
			}
			if found != "" {
				return "", fmt.Errorf("%q and %q are one file on FAT32: %w", path.Join(dir, found), path.Join(dir, d.Name()), ErrFAT)
			}
			found = d.Name()
		}
		if found == "" {
			return "", &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		dir = path.Join(dir, found)
	}
	return dir, nil
}
