package freeze

// ParseWhole parses a manifest with package json alone.
var ParseWhole = parseWhole
