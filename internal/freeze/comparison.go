package freeze

import (
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
)

// Comparisons are stored beside the attestations, in files that are named the same way.
// Each lists the differences between the published image and one that a builder made. A
// comparison is not signed, but the attestation of the same image is.
const (
	comparisonPrefix = StatementDir + "/comparison-"
	comparisonSuffix = ".json"
)

// MaxComparison bounds the file of a comparison, in bytes.
const MaxComparison = 1 << 20

// ComparisonPath returns the path of the file of a comparison with this digest.
func ComparisonPath(d cas.Digest) string { return comparisonPrefix + d.String() + comparisonSuffix }

// IsComparison reports whether a file beside a manifest is a comparison.
func IsComparison(path string) bool {
	return strings.HasPrefix(path, comparisonPrefix) && strings.HasSuffix(path, comparisonSuffix)
}

// IsAdded reports whether a file beside a manifest was added by builders or rebuilders,
// without a signature of a server: an attestation, a list of links or a comparison.
func IsAdded(path string) bool {
	return IsAttestation(path) || IsRebuilds(path) || IsComparison(path)
}

// EncodeComparison encodes a comparison as canonical JSON, without data about the machine
// that made it. If it is too long, EncodeComparison leaves out paths and counts them.
// ErrUsage.
func EncodeComparison(r *api.CompareResult) ([]byte, error) {
	one := *r
	one.A.Name, one.B.Name = "the published image", "the rebuilt image"
	one.Explained, one.Hint, one.HTML, one.Unused = nil, "", "", nil
	one.Differences = slices.Clone(r.Differences)
	for {
		data, err := canonical.Marshal(&one)
		if err != nil || len(data) <= MaxComparison {
			return data, err
		}
		n := len(one.Differences)
		if n == 0 {
			return nil, fmt.Errorf("%w: comparison of %d bytes without its paths, expected at most %d", ErrUsage, len(data), MaxComparison)
		}
		one.Differences, one.More = one.Differences[:n/2], one.More+n-n/2
	}
}

// ParseComparison parses what EncodeComparison wrote. ErrUsage.
func ParseComparison(data []byte) (*api.CompareResult, error) {
	if len(data) > MaxComparison {
		return nil, fmt.Errorf("%w: comparison of %d bytes, expected at most %d", ErrUsage, len(data), MaxComparison)
	}
	var r api.CompareResult
	if err := canonical.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%w: comparison: %w", ErrUsage, err)
	}
	for _, s := range []api.CompareSide{r.A, r.B} {
		if _, err := cas.ParseDigest(s.SHA256); err != nil {
			return nil, fmt.Errorf("%w: comparison: %w", ErrUsage, err)
		}
	}
	if !slices.Contains([]string{"layout", "metadata", "contents"}, r.Verdict) {
		return nil, fmt.Errorf("%w: comparison: verdict %q, expected layout, metadata or contents", ErrUsage, r.Verdict)
	}
	if again, err := EncodeComparison(&r); err != nil {
		return nil, err
	} else if string(again) != string(data) {
		return nil, fmt.Errorf("%w: comparison: expected no data about the machine that made it", ErrUsage)
	}
	return &r, nil
}
