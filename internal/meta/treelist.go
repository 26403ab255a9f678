package meta

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

const (
	treeMagic = "snapd-tree/1\n"
	// TreePath is the path of a listing in a record.
	TreePath = "tree"
)

// EncodeTree makes the listing of a freeze whose nodes are sorted by path. It excludes
// statements, because they are added later.
func EncodeTree(f *Frozen, nodes []Node) ([]byte, error) {
	record := *f
	record.Tree = repo.File{}
	head, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(treeMagic)
	b.Write(head)
	b.WriteByte('\n')
	for _, n := range nodes {
		fmt.Fprintf(&b, "%s %d %d %s\n", n.Digest, n.Size, n.ModTime.Unix(), strconv.Quote(n.Path))
	}
	return b.Bytes(), nil
}

// DecodeTree reads a listing. ErrCorrupt.
func DecodeTree(data []byte) (*Frozen, []Node, error) {
	rest, ok := bytes.CutPrefix(data, []byte(treeMagic))
	if !ok {
		return nil, nil, fmt.Errorf("%w: not a tree listing", ErrCorrupt)
	}
	head, rest, ok := bytes.Cut(rest, []byte("\n"))
	var f Frozen
	if err := json.Unmarshal(head, &f); !ok || err != nil {
		return nil, nil, fmt.Errorf("%w: tree listing: %w", ErrCorrupt, err)
	}
	var nodes []Node
	sc := bufio.NewScanner(bytes.NewReader(rest))
	sc.Buffer(nil, 64<<10)
	for line := 3; sc.Scan(); line++ {
		n, err := decodeTreeLine(sc.Text())
		if err != nil {
			return nil, nil, fmt.Errorf("%w: tree listing, line %d: %w", ErrCorrupt, line, err)
		}
		nodes = append(nodes, n)
	}
	if err := sc.Err(); err != nil {
		return nil, nil, fmt.Errorf("%w: tree listing: %w", ErrCorrupt, err)
	}
	return &f, nodes, nil
}

func decodeTreeLine(line string) (n Node, err error) {
	parts := strings.SplitN(line, " ", 4)
	if len(parts) != 4 {
		return n, fmt.Errorf("%d fields, expected 4", len(parts))
	}
	digest, err := hex.DecodeString(parts[0])
	if err != nil || len(digest) != len(n.Digest) {
		return n, fmt.Errorf("digest %q", parts[0])
	}
	n.Digest = cas.Digest(digest)
	if n.Size, err = strconv.ParseInt(parts[1], 10, 64); err != nil {
		return n, err
	}
	at, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return n, err
	}
	n.ModTime = time.Unix(at, 0).UTC()
	n.Path, err = strconv.Unquote(parts[3])
	return n, err
}

// TreeFault is a file of a frozen tree that differs from what was published.
type TreeFault struct {
	Path       string
	Want, Have *Node // nil: no such file
}
