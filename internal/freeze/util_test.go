package freeze_test

import "example.org/snapd/internal/cas"

func cdigest(b []byte) string { return cas.Sum(b).String() }
