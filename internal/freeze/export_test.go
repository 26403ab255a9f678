package freeze

// ParseWhole parses a manifest only with package json.
var ParseWhole = parseWhole
