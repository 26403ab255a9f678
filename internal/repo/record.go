package repo

import "strings"

// Main is the file that stands for a package: the package itself, or the .dsc of a
// Debian source package, wherever its stanza lists that. ok is false where there
// are no files.
func (r *Record) Main() (f File, ok bool) {
	for i, file := range r.Files {
		if i == 0 || strings.HasSuffix(file.Path, ".dsc") {
			f, ok = file, true
		}
	}
	return f, ok
}
