// Package snapd holds the documented configuration, from which the manual page
// of its format is made.
package snapd

import _ "embed"

// ExampleConfig is config.example.toml: every key with its default and meaning.
//
//go:embed config.example.toml
var ExampleConfig string
