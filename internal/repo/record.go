package repo

import "strings"

// MainFile returns the file that represents a package: the package itself, or the
// .dsc of a Debian source package, at any position in files. ok is false if files
// is empty.
func MainFile(files []File) (f File, ok bool) {
	for i, file := range files {
		if i == 0 || strings.HasSuffix(file.Path, ".dsc") {
			f, ok = file, true
		}
	}
	return f, ok
}
