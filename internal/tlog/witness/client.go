package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"example.org/snapd/internal/tlog"
)

// maxAnswer limits the answer of a witness, in bytes.
const maxAnswer = 64 << 10

// SizeError means that a witness last cosigned another size than the request names.
type SizeError struct{ Size int64 }

func (e *SizeError) Error() string {
	return fmt.Sprintf("the witness has last cosigned %d entries", e.Size)
}

// ErrForked means that a witness has seen another history.
var ErrForked = errors.New("the witness has seen another history of the log")

// Ask asks a witness for a cosignature of a checkpoint and returns its signature lines,
// which it does not check. It returns *SizeError if the witness has cosigned another
// size, and ErrForked if it has seen another history.
func Ask(ctx context.Context, c *http.Client, url string, a *tlog.AddCheckpoint) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(url, "/")+"/add-checkpoint", bytes.NewReader(a.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	case res.StatusCode == http.StatusOK:
		return body, nil
	case res.StatusCode == http.StatusUnprocessableEntity:
		return nil, fmt.Errorf("%w: %s", ErrForked, oneLine(body))
	case res.StatusCode == http.StatusConflict:
		if media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); media == sizeType {
			n, err := strconv.ParseInt(strings.TrimSuffix(string(body), "\n"), 10, 64)
			if err == nil && n >= 0 && n != a.Old {
				return nil, &SizeError{n}
			}
		}
		return nil, fmt.Errorf("%w: %s", ErrForked, oneLine(body))
	}
	return nil, fmt.Errorf("status %s: %s", res.Status, oneLine(body))
}

// oneLine shortens an answer to one line for a message.
func oneLine(b []byte) string {
	s := strings.Join(strings.Fields(strings.ToValidUTF8(string(b), "?")), " ")
	return strconv.Quote(s[:min(len(s), 200)])
}
