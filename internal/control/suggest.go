package control

import (
	"cmp"
	"context"
	"example.org/snapd/internal/meta"
	"slices"
	"strings"
)

const (
	// suggestRead is how many names of a mirror are read, at most, to find those that are
	// similar to a text.
	suggestRead = 5000
	// maxSuggest is how long a text may be for which names are suggested, in bytes.
	maxSuggest = 100
)

// Suggest returns at most limit names of packages that a text may mean: names that begin
// with it, in order, or else names that begin alike and differ by a few letters, nearest
// first.
func (c *Control) Suggest(ctx context.Context, text string, limit int) ([]string, error) {
	names := []string{}
	if text == "" || len(text) > maxSuggest {
		return names, nil
	}
	mirrors, err := c.st.Mirrors(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range mirrors {
		some, err := c.st.PackageNames(ctx, m, text, "", limit)
		if err != nil {
			return nil, err
		}
		names = append(names, some...)
	}
	if names = sortedSet(names); len(names) == 0 {
		if names, err = c.alike(ctx, mirrors, text); err != nil {
			return nil, err
		}
	}
	return names[:min(len(names), limit)], nil
}

// alike returns names that differ from a text by a few letters. It first looks at the names
// that begin with all letters of the text but the last one, then with one letter fewer each
// time, and stops as soon as it finds any.
func (c *Control) alike(ctx context.Context, mirrors []meta.MirrorName, text string) ([]string, error) {
	most := 1 + len(text)/5 // letters
	far := map[string]int{}
	read := 0
	for n := len(text) - 1; n > 0 && len(far) == 0 && read < suggestRead; n-- {
		for _, m := range mirrors {
			names, err := c.st.PackageNames(ctx, m, text[:n], "", suggestRead)
			if err != nil {
				return nil, err
			}
			read += len(names)
			for _, name := range names {
				if d := distance(text, name, most); d <= most {
					far[name] = d
				}
			}
		}
	}
	out := make([]string, 0, len(far))
	for name := range far {
		out = append(out, name)
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(cmp.Compare(far[a], far[b]), strings.Compare(a, b)) })
	return out, nil
}

// distance returns the number of letters that must be added, removed, changed or
// exchanged with the next one to turn a into b. It is most+1 if their lengths differ by
// more than most.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	before, last, row := []int(nil), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		if before == nil {
			before = make([]int, len(b)+1)
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
