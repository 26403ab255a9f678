package freeze

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/lazyregexp"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Labels describe a freeze to people and programs: pairs K=V, and a description. They are
// in a statement beside the manifest, and each change adds another statement.
type Labels struct {
	Labels      map[string]string
	Description string
}

// Limits of the labels of a freeze.
const (
	maxLabels       = 64
	maxLabelKey     = 63
	maxLabelValue   = 255  // bytes
	maxDescription  = 4096 // bytes
	MaxLabelChanges = 1000
)

var labelKeyRE = lazyregexp.New(`^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$`)

// Equal reports whether both have the same labels and description.
func (l Labels) Equal(o Labels) bool {
	return l.Description == o.Description && maps.Equal(l.Labels, o.Labels)
}

// None reports whether there are no labels and no description.
func (l Labels) None() bool { return l.Equal(Labels{}) }

// Check returns ErrUsage if a key, a value or the description is not allowed.
func (l Labels) Check() error {
	if len(l.Labels) > maxLabels {
		return fmt.Errorf("%w: %d labels, expected at most %d", ErrUsage, len(l.Labels), maxLabels)
	}
	for _, k := range slices.Sorted(maps.Keys(l.Labels)) {
		if err := CheckLabelKey(k); err != nil {
			return err
		}
		v := l.Labels[k]
		if len(v) > maxLabelValue {
			return fmt.Errorf("%w: label %s: its value has %d bytes, expected at most %d", ErrUsage, k, len(v), maxLabelValue)
		}
		if r, ok := unprintable(v, ""); ok {
			return fmt.Errorf("%w: label %s: its value has the character %U, expected printable text", ErrUsage, k, r)
		}
	}
	if len(l.Description) > maxDescription {
		return fmt.Errorf("%w: the description has %d bytes, expected at most %d", ErrUsage, len(l.Description), maxDescription)
	}
	if r, ok := unprintable(l.Description, "\n\t"); ok {
		return fmt.Errorf("%w: the description has the character %U, expected printable text", ErrUsage, r)
	}
	return nil
}

// CheckLabelKey returns ErrUsage if a label may not have a key.
func CheckLabelKey(k string) error {
	if len(k) > maxLabelKey || !labelKeyRE().MatchString(k) {
		return fmt.Errorf("%w: label key %q: expected letters, digits and ._/- (at most %d, the first and last a letter or digit)", ErrUsage, excerpt.Of(k), maxLabelKey)
	}
	return nil
}

// unprintable finds a character of a text that is neither printable nor in or.
func unprintable(s, or string) (rune, bool) {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return r, true
			}
		}
		if !unicode.IsGraphic(r) && !strings.ContainsRune(or, r) {
			return r, true
		}
	}
	return 0, false
}

// labelsPrefix is the prefix of the paths of statements with labels.
const labelsPrefix = StatementDir + "/labels-"

// LabelsName returns the name of the statement with labels that has a number and a
// digest. The name contains the digest because the contents at a path never change, even
// if the freeze is removed and made again with other labels.
func LabelsName(number int, d cas.Digest) string { return fmt.Sprintf("labels-%d-%s", number, d) }

// LabelsPath returns the path of that statement.
func LabelsPath(number int, d cas.Digest) string {
	return StatementDir + "/" + LabelsName(number, d) + ".json"
}

// IsLabels reports whether a file beside a manifest belongs to a statement with labels.
func IsLabels(path string) bool { return strings.HasPrefix(path, labelsPrefix) }

// LabelsNumber returns the number of a statement with labels. ok is false for other
// files.
func LabelsNumber(file repo.File) (number int, ok bool) {
	rest, ok := strings.CutPrefix(file.Path, labelsPrefix)
	digits, _, _ := strings.Cut(rest, "-")
	number, err := strconv.Atoi(digits)
	return number, ok && err == nil && number > 0 && file.Path == LabelsPath(number, file.SHA256)
}

// NewestLabels returns the statement with the labels of a freeze, and its number: the
// highest one. ok is false if the freeze has no labels.
func NewestLabels(f *meta.Frozen) (file repo.File, number int, ok bool) {
	for _, s := range f.Statements {
		if n, is := LabelsNumber(s); is && (n > number || n == number && s.Path > file.Path) {
			file, number, ok = s, n, true
		}
	}
	return file, number, ok
}
