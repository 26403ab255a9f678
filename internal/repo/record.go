package repo

import "strings"

// MainFile is the one of a package's files that stands for it: the package itself,
// or the .dsc of a Debian source package, wherever its stanza lists that. ok is
// false where there are no files.
func MainFile(files []File) (f File, ok bool) {
	for i, file := range files {
		if i == 0 || strings.HasSuffix(file.Path, ".dsc") {
			f, ok = file, true
		}
	}
	return f, ok
}
