package compare

// A class is the severity of a cause.
type class int

// The classes, in increasing order of severity. The verdict is the most severe class
// that occurs.
const (
	classLayout class = iota + 1
	classMetadata
	classContents
)

func (c class) String() string {
	switch c {
	case classLayout:
		return "layout"
	case classMetadata:
		return "metadata"
	case classContents:
		return "contents"
	}
	return "equal"
}

// The codes of causes. They are part of the interface: files of expected
// differences name them.
const (
	codeMtime       = "mtime"
	codeMode        = "mode"
	codeUmask       = "umask"
	codeOwner       = "owner"
	codeHardLink    = "hard-link"
	codeInodeOrder  = "inode-order"
	codeXattr       = "xattr"
	codeLineOrder   = "line-order"
	codeDate        = "date-in-text"
	codeBuildPath   = "build-path"
	codeHostName    = "host-name"
	codeKernel      = "kernel-version"
	codeRandomID    = "random-id"
	codeGzipTime    = "gzip-time"
	codeZipTime     = "zip-time"
	codeArTime      = "ar-time"
	codeCpioTime    = "cpio-time"
	codeTarTime     = "tar-time"
	codePycTime     = "pyc-time"
	codeCache       = "cache-by-name"
	codeShadowDay   = "shadow-day"
	codeBuildID     = "elf-build-id"
	codeDebugLink   = "debuglink"
	codeCompression = "compression"
	codeLayout      = "layout"
	codeDigest      = "digest"
	codeMissing     = "missing"
	codeAdded       = "added"
	codeType        = "type"
	codeTarget      = "target"
	codeDevice      = "device"
	codeContents    = "contents"
)

// A Code is a stable name for a cause of differences.
type Code struct {
	Name    string
	Class   string // layout, metadata or contents
	Meaning string
	class   class
}

// Codes returns all codes, in the order of docs/COMPARE.md.
func Codes() []Code {
	list := []Code{
		{codeMtime, "", "the modification time", classMetadata},
		{codeMode, "", "the permissions", classMetadata},
		{codeUmask, "", "the permissions of several files, as another umask makes them", classMetadata},
		{codeOwner, "", "the user or the group", classMetadata},
		{codeHardLink, "", "the path is a hard link to other paths, or to none", classMetadata},
		{codeXattr, "", "the extended attributes", classMetadata},
		{codeInodeOrder, "", "the files were packed in another order", classLayout},
		{codeCompression, "", "the same contents, compressed in another way", classLayout},
		{codeLayout, "", "the same contents and metadata in other bytes; the section is named", classLayout},
		{codeLineOrder, "", "the same lines in another order", classContents},
		{codeDate, "", "dates or times in a text", classContents},
		{codeBuildPath, "", "the directory of the build", classContents},
		{codeHostName, "", "the host name", classContents},
		{codeKernel, "", "the version of a kernel", classContents},
		{codeRandomID, "", "a UUID, a machine ID, a salt, a temporary name or another random value", classContents},
		{codeGzipTime, "", "the time in the header of gzip", classContents},
		{codeZipTime, "", "the times of members of a zip archive", classContents},
		{codeArTime, "", "the times of members of an ar archive", classContents},
		{codeCpioTime, "", "the times of members of a cpio archive", classContents},
		{codeTarTime, "", "the times of members of a tar archive that is itself a file", classContents},
		{codePycTime, "", "the time of the source in a compiled Python file", classContents},
		{codeShadowDay, "", "the day of the last change of a password", classContents},
		{codeBuildID, "", "the build ID of an ELF file", classContents},
		{codeDebugLink, "", "the link of an ELF file to its debug symbols", classContents},
		{codeDigest, "", "digests, sizes and signatures of other contents that differ", classContents},
		{codeCache, "", "a cache, judged only by its name: the difference itself was not explained", classContents},
		{codeMissing, "", "the path is only in A", classContents},
		{codeAdded, "", "the path is only in B", classContents},
		{codeType, "", "a file of another type, such as a directory for a link", classContents},
		{codeTarget, "", "the target of a symbolic link", classContents},
		{codeDevice, "", "the number of a device", classContents},
		{codeContents, "", "contents that nothing above explains", classContents},
	}
	for i := range list {
		list[i].Class = list[i].class.String()
	}
	return list
}

var classes = func() map[string]class {
	m := map[string]class{}
	for _, c := range Codes() {
		m[c.Name] = c.class
	}
	return m
}()
