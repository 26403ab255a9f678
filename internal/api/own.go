package api

// AddRequest is `snapctl add`. The files follow, in this order.
type AddRequest struct {
	Mirror    string   `json:"mirror"`
	Suite     string   `json:"suite,omitempty"`
	Component string   `json:"component,omitempty"`
	Files     []string `json:"files"` // base names
}

// OwnRemove is `snapctl remove`.
type OwnRemove struct {
	Mirror   string   `json:"mirror"`
	Packages []string `json:"packages"` // NAME[:ARCH][=VERSION]
}

// OwnResult is the outcome of `snapctl add` and `snapctl remove`.
type OwnResult struct {
	Mirror   string       `json:"mirror"`
	Snapshot string       `json:"snapshot"` // the newest snapshot, new or not
	New      bool         `json:"new"`
	Packages []OwnPackage `json:"packages"`        // added or removed packages, including source packages
	Files    int64        `json:"files,omitempty"` // received
	Bytes    int64        `json:"bytes,omitempty"` // received
}

// OwnPackage is a package in a suite of a local mirror.
type OwnPackage struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	Arch      string `json:"arch"`
	Suite     string `json:"suite,omitempty"`
	Component string `json:"component,omitempty"`
}
