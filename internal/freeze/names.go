package freeze

// Names of the files of a freeze, in an export and where it is served. No mirror's
// name begins with an underscore.
const (
	ManifestFile        = "manifest.json"
	ManifestSignature   = "manifest.json.asc"
	ProvenanceFile      = "provenance.json"
	ProvenanceSignature = "provenance.json.asc"
	KeyFile             = "key.asc"
	ProofDir            = "_proof"      // <mirror>/<sha256> of upstream's files
	StatementDir        = "_statements" // signed statements, each beside its signature
	CertificatesFile    = "keys.asc"    // in the proof of a mirror
	MetalinkFile        = "metalink.xml"
)

// Bounds of what is read, in bytes.
const (
	MaxManifest     = 512 << 20
	MaxProvenance   = 4 << 20
	MaxSignature    = 1 << 20 // of a signature, a statement, the key of a freeze
	MaxCertificates = 16 << 20
	MaxMetalink     = 16 << 20
	MaxDocument     = 64 << 20 // of a signed document
	MaxTreeListing  = 512 << 20
)
