package compare

import (
	"fmt"
	"strings"
)

// maxDiffCells bounds the table of a diff: the product of the numbers of lines between
// the first and the last that differ. Beyond it these lines are shown as replaced.
const maxDiffCells = 4 << 20

// contextLines is how many equal lines a unified diff shows around a change.
const contextLines = 3

// An edit is one line of a diff: ' ', '-' or '+'.
type edit struct {
	op   byte
	line string
}

// unified returns a unified diff of two texts.
func unified(nameA, nameB, a, b string) string {
	edits := diffLines(splitLines(a), splitLines(b))
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", nameA, nameB)
	lineA, lineB := 1, 1
	for i := 0; i < len(edits); {
		if edits[i].op == ' ' {
			i, lineA, lineB = i+1, lineA+1, lineB+1
			continue
		}
		// A hunk continues while changes are close to each other.
		from := max(i-contextLines, 0)
		to, equal := i, 0
		for to < len(edits) && equal <= 2*contextLines {
			if edits[to].op == ' ' {
				equal++
			} else {
				equal = 0
			}
			to++
		}
		to -= max(equal-contextLines, 0)
		lineA, lineB = lineA-(i-from), lineB-(i-from)
		startA, startB := lineA, lineB
		var body strings.Builder
		for _, e := range edits[from:to] {
			if e.op != '+' {
				lineA++
			}
			if e.op != '-' {
				lineB++
			}
			body.WriteByte(e.op)
			body.WriteString(strings.TrimSuffix(e.line, "\n") + "\n")
			if !strings.HasSuffix(e.line, "\n") {
				body.WriteString("\\ no newline at the end\n")
			}
		}
		fmt.Fprintf(&out, "@@ -%d,%d +%d,%d @@\n%s", startA, lineA-startA, startB, lineB-startB, body.String())
		i = to
	}
	return out.String()
}

// splitLines splits a text after each newline.
func splitLines(s string) []string {
	lines := strings.SplitAfter(s, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// diffLines returns the edits that make b of a, with a longest common subsequence.
func diffLines(a, b []string) (out []edit) {
	var head, tail []edit
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head = append(head, edit{' ', a[0]})
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		tail = append(tail, edit{' ', a[len(a)-1]})
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	out = head
	if w := len(b) + 1; (len(a)+1)*w <= maxDiffCells {
		// common[i*w+j] is the length of the subsequence of a[i:] and b[j:].
		common := make([]int32, (len(a)+1)*w)
		for i := len(a) - 1; i >= 0; i-- {
			for j := len(b) - 1; j >= 0; j-- {
				if a[i] == b[j] {
					common[i*w+j] = common[(i+1)*w+j+1] + 1
				} else {
					common[i*w+j] = max(common[(i+1)*w+j], common[i*w+j+1])
				}
			}
		}
		i, j := 0, 0
		for i < len(a) && j < len(b) {
			switch {
			case a[i] == b[j]:
				out = append(out, edit{' ', a[i]})
				i, j = i+1, j+1
			case common[(i+1)*w+j] >= common[i*w+j+1]:
				out = append(out, edit{'-', a[i]})
				i++
			default:
				out = append(out, edit{'+', b[j]})
				j++
			}
		}
		a, b = a[i:], b[j:]
	}
	for _, l := range a {
		out = append(out, edit{'-', l})
	}
	for _, l := range b {
		out = append(out, edit{'+', l})
	}
	for i := len(tail) - 1; i >= 0; i-- {
		out = append(out, tail[i])
	}
	return out
}
