package api

// ShownPackage is `snapctl show REF PACKAGE`: one version of a package in a snapshot or
// freeze.
type ShownPackage struct {
	Ref string `json:"ref"`
	// Stanzas are those of its architectures, mirrors and indices, which may differ from
	// suite to suite.
	Stanzas []PackageDetail `json:"stanzas"`
}

// PackageDetail is a package with its control data and its history.
type PackageDetail struct {
	Package                // with its files, also if it is a binary package
	Places  []PackagePlace `json:"places"`
	Fields  []PackageField `json:"fields"` // as upstream's index has them
	Here    bool           `json:"here"`   // its bytes are stored
	// Seen are the snapshots of its mirror that have it, the newest first.
	Seen     []Seen   `json:"seen"`
	Frozen   []string `json:"frozen"`   // freezes that contain it
	Channels []string `json:"channels"` // that show or still answer for one of them
}

// PackagePlace is a suite and component that list a package.
type PackagePlace struct {
	Suite     string `json:"suite"`
	Component string `json:"component,omitempty"`
}

// PackageField is a field of a package's control data.
type PackageField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
