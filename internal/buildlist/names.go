package buildlist

import (
	"encoding/hex"
	"strings"
)

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isAlnum(c byte) bool { return isLower(c) || isUpper(c) || isDigit(c) }

// all reports whether s is not empty and ok is true for every byte.
func all(s string, ok func(byte) bool) bool {
	for i := 0; i < len(s); i++ {
		if !ok(s[i]) {
			return false
		}
	}
	return s != ""
}

// debName reports whether dpkg accepts s as the name of a package. Debian's archive
// is stricter (policyName).
func debName(s string) bool {
	return s != "" && isAlnum(s[0]) && all(s, func(c byte) bool {
		return isAlnum(c) || c == '+' || c == '-' || c == '.' || c == '_'
	})
}

// policyName reports whether s is a package name by Debian Policy 5.6.1.
func policyName(s string) bool {
	return len(s) >= 2 && (isLower(s[0]) || isDigit(s[0])) && all(s, func(c byte) bool {
		return isLower(c) || isDigit(c) || c == '+' || c == '-' || c == '.'
	})
}

// debVersion reports whether s can be a Debian version (deb-version(7)): the
// upstream version starts with a digit.
func debVersion(s string) bool {
	if epoch, rest, ok := strings.Cut(s, ":"); ok {
		if !all(epoch, isDigit) {
			return false
		}
		s = rest
	}
	return s != "" && isDigit(s[0]) && all(s, func(c byte) bool {
		return isAlnum(c) || strings.IndexByte(".+-~:", c) >= 0
	})
}

// archName reports whether s can be an architecture: "amd64", "x86_64",
// "musl-linux-arm64".
func archName(s string) bool {
	return len(s) <= 64 && s != "" && (isLower(s[0]) || isDigit(s[0])) && all(s, func(c byte) bool {
		return isLower(c) || isDigit(c) || c == '-' || c == '_'
	})
}

// rpmName reports whether s can be the name of an rpm package.
func rpmName(s string) bool {
	return s != "" && (isAlnum(s[0]) || s[0] == '_') && all(s, func(c byte) bool {
		return isAlnum(c) || strings.IndexByte("._+-", c) >= 0
	})
}

// rpmPart reports whether s can be the version or the release of an rpm: neither
// contains a dash.
func rpmPart(s string) bool {
	return all(s, func(c byte) bool {
		return isAlnum(c) || strings.IndexByte("._+~^%{}", c) >= 0
	})
}

// rpmEVR parses "[epoch:]version-release" and removes an epoch of 0 or "(none)".
// known reports whether there was an epoch.
func rpmEVR(s string) (evr string, known, ok bool) {
	epoch, rest, has := strings.Cut(s, ":")
	if !has {
		epoch, rest = "", s
	} else {
		if epoch == "(none)" {
			epoch = "0"
		}
		if !all(epoch, isDigit) || len(epoch) > 10 {
			return "", false, false
		}
		epoch = strings.TrimLeft(epoch, "0")
	}
	v, r, cut := strings.Cut(rest, "-")
	if !cut || !rpmPart(v) || !rpmPart(r) {
		return "", false, false
	}
	if epoch != "" {
		return epoch + ":" + rest, true, true
	}
	return rest, has, true
}

// versionish reports whether s can be a version of a deb or an rpm.
func versionish(s string) bool {
	if debVersion(s) {
		return true
	}
	_, _, ok := rpmEVR(s)
	return ok
}

// splitArch splits "name:arch".
func splitArch(s string) (name, arch string, ok bool) {
	name, arch, has := strings.Cut(s, ":")
	return name, arch, !has || archName(arch)
}

// digest sets the digest of an algorithm, which may be written "SHA256", "sha-256"
// or "MD5Sum". It returns false if sum is not such a digest, if digests of the
// algorithm are not kept, or if a different one is already set.
func (e *Entry) digest(algo, sum string) bool {
	to, size := e.digestField(algo)
	sum = strings.ToLower(sum)
	if b, err := hex.DecodeString(sum); to == nil || err != nil || len(b) != size || *to != "" && *to != sum {
		return false
	}
	*to = sum
	return true
}

// digestField returns the field for digests of an algorithm and their size in
// bytes; nil if they are not kept.
func (e *Entry) digestField(algo string) (*string, int) {
	switch strings.ReplaceAll(strings.ToLower(algo), "-", "") {
	case "sha256":
		return &e.SHA256, 32
	case "sha512":
		return &e.SHA512, 64
	case "sha1", "sha":
		return &e.SHA1, 20
	case "md5", "md5sum":
		return &e.MD5, 16
	}
	return nil, 0
}

// digestAny reports whether s looks like a digest of an algorithm that is kept.
func (e *Entry) digestAny(s string) bool {
	for _, algo := range []string{"sha256", "sha512", "sha1", "md5"} {
		if e.digest(algo, s) {
			return true
		}
	}
	return false
}
