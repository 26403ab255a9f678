package location_test

import (
	"strings"
	"testing"

	"example.org/snapd/internal/cas/s3/location"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"s3://bucket": "",
		"s3://bucket/a/b?endpoint=https://s3.example.org&region=r": "",
		"s3://bucket/?endpoint=http://127.0.0.1:7070":              "",
		"http://bucket":                          "expected s3://BUCKET",
		"s3://key:secret@bucket":                 "name a credentials_file",
		"s3://B":                                 "not the name of a bucket",
		"s3://bucket/a//b":                       "empty parts",
		"s3://bucket/../b":                       "empty parts",
		"s3://bucket?endpont=x":                  `unknown parameter "endpont"`,
		"s3://bucket?region=a&region=b":          "given 2 times",
		"s3://bucket?endpoint=ftp://x":           "expected https://HOST",
		"s3://bucket?endpoint=http://u:secret@x": "expected https://HOST",
		"s3://bucket?lookup=x":                   "expected path or dns",
		"s3://bucket#x":                          "fragment",
	} {
		_, err := location.Parse(text)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v, expected %q", text, err, want)
		}
	}
}
