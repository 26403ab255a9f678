package freeze

// Names of the files of a freeze, both in an export and on the server. No
// mirror's name starts with an underscore.
const (
	ManifestFile        = "manifest.json"
	ManifestSignature   = "manifest.json.asc"
	ProvenanceFile      = "provenance.json"
	ProvenanceSignature = "provenance.json.asc"
	KeyFile             = "key.asc"
	SumsFile            = "SHA256SUMS"  // of an export: all its other files, as sha256sum prints them
	ProofDir            = "_proof"      // <mirror>/<sha256> of upstream's files
	StatementDir        = "_statements" // signed statements, each beside its signature
	CertificatesFile    = "keys.asc"    // in the proof of a mirror
	MetalinkFile        = "metalink.xml"
)

// Limits of files that are read, in bytes.
const (
	MaxManifest     = 512 << 20
	MaxProvenance   = 4 << 20
	MaxSignature    = 1 << 20 // for a signature, a statement, or the key of a freeze
	MaxCertificates = 16 << 20
	MaxMetalink     = 16 << 20
	MaxDocument     = 64 << 20 // for a signed document
	MaxTreeListing  = 512 << 20
	MaxSums         = 512 << 20
)
