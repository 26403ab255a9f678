package api

// ShownPackage is `snapctl show REF PACKAGE`: one version of a package in a snapshot or
// freeze.
type ShownPackage struct {
	Ref string `json:"ref"`
	// Stanzas are the stanzas of the package's architectures, mirrors and indices. They
	// may differ from suite to suite.
	Stanzas []PackageDetail `json:"stanzas"`
}

// PackageDetail is a package with its control data and its history.
type PackageDetail struct {
	Package                // with Files, even for a binary package
	Places  []PackagePlace `json:"places"`
	Fields  []PackageField `json:"fields"` // as in upstream's index
	Here    bool           `json:"here"`   // its bytes are stored
	// Seen lists the snapshots of the mirror that have the package, newest first.
	Seen     []Seen   `json:"seen"`
	Frozen   []string `json:"frozen"`   // freezes that contain it
	Channels []string `json:"channels"` // channels that show or still serve one of these freezes
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
