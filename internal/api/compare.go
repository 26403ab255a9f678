package api

// CompareResult is `snapctl compare`. Exit is 4 if there are unexpected differences.
type CompareResult struct {
	A CompareSide `json:"a"`
	B CompareSide `json:"b"`
	// Verdict is equal, layout, metadata or contents: the worst kind of difference.
	Verdict     string              `json:"verdict"`
	Differences []CompareDifference `json:"differences"`
	More        int                 `json:"more,omitempty"` // number of further paths that differ, which only Codes counts
	Codes       []CompareCount      `json:"codes"`
	Packages    []ComparePackage    `json:"packages"`
	Expected    int                 `json:"expected,omitempty"` // number of paths whose differences were all expected
	Unused      []CompareUnused     `json:"unused,omitempty"`
	Notes       []string            `json:"notes,omitempty"` // what was not examined, and why
	Explained   *CompareExplained   `json:"explained,omitempty"`
	Hint        string              `json:"hint,omitempty"` // a command that shows more of an unexplained difference
	HTML        string              `json:"html,omitempty"` // path of the report, if one was written
	Exit        int                 `json:"exit"`
}

// CompareSide is one of the two inputs.
type CompareSide struct {
	Name   string `json:"name"`
	Format string `json:"format"`
	Size   int64  `json:"size"`             // bytes; 0 for a directory
	SHA256 string `json:"sha256,omitempty"` // absent for a directory
}

// CompareDifference is a path that differs.
type CompareDifference struct {
	Path     string         `json:"path"`              // "." is the container; "//" is between an archive and a path in it
	Package  string         `json:"package,omitempty"` // that owns the path
	Causes   []CompareCause `json:"causes"`
	Expected bool           `json:"expected,omitempty"` // every cause was expected
}

// CompareCause is one cause of a difference.
type CompareCause struct {
	Code     string `json:"code"`        // of docs/COMPARE.md
	A        string `json:"a,omitempty"` // the value on each side
	B        string `json:"b,omitempty"`
	Detail   string `json:"detail,omitempty"`
	Expected bool   `json:"expected,omitempty"`
}

// CompareCount is the number of paths with one code.
type CompareCount struct {
	Code     string `json:"code"`
	Paths    int    `json:"paths"`
	Expected int    `json:"expected,omitempty"` // how many of them were expected
}

// ComparePackage is a package that owns paths that differ.
type ComparePackage struct {
	Package string   `json:"package"`
	A       string   `json:"a,omitempty"` // version on each side; absent where it is not installed
	B       string   `json:"b,omitempty"`
	Paths   int      `json:"paths"`
	Codes   []string `json:"codes"`
}

// CompareUnused is a line of the expected differences that matched nothing.
type CompareUnused struct {
	Line int    `json:"line"`
	Text string `json:"text"`
}

// CompareExplained is what --explain shows of one path.
type CompareExplained struct {
	Path  string   `json:"path"`
	Text  string   `json:"text"`
	Files []string `json:"files,omitempty"` // written by --export
}
