package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"example.org/snapd/internal/api"
)

func jsonBody(v any) (io.Reader, error) {
	b, err := json.Marshal(v)
	return bytes.NewReader(b), err
}

// decodeLines reads the answer of a verb.
func decodeLines(r io.Reader, result any) error {
	dec := json.NewDecoder(r)
	for {
		var l api.Line
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		switch {
		case l.Error != nil:
			return l.Error
		case l.Result != nil && result != nil:
			return json.Unmarshal(l.Result, result)
		case l.Result != nil:
			return nil
		}
	}
}

// readAll reads an answer of bounded size.
func readAll(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, 64<<20)) }
