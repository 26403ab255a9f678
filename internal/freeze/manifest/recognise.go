package manifest

import "fmt"

// Recognise finds the format of a manifest from its first bytes.
func Recognise(name string, head []byte) (Format, error) {
	return "", fmt.Errorf("recognise %s: %w", name, ErrUnrecognised)
}
