package sign

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/excerpt"
)

const (
	clearBegin = "-----BEGIN PGP SIGNED MESSAGE-----"
	sigBegin   = "-----BEGIN PGP SIGNATURE-----"

	// maxLine bounds a line of a clear-signed message, in bytes. GnuPG truncates
	// longer ones (MAX_LINELEN in g10/armor.c, 20,000 with the line ending).
	maxLine = 19990
)

// VerifyClearsigned verifies a clear-signed message such as an InRelease file. The data
// must be exactly one message that starts at the first byte. Only white space may follow
// it, and, by apt's rules, nothing at all. The result contains the signed text. Anything
// that apt and gpgv could read differently is refused with ErrMalformed: headers other
// than Hash, lines that begin with an unescaped dash, NUL, carriage returns within a
// line, overlong lines. The other errors are those of VerifyDetached.
func VerifyClearsigned(data []byte, opts VerifyOptions) (Verified, error) {
	text, canonical, armor, digests, err := splitClearsigned(data)
	if err != nil {
		return Verified{}, err
	}
	sigs, err := parseDetached(armor, opts.Client == Apt)
	if err != nil {
		return Verified{}, err
	}
	for _, m := range sigs {
		// gpgv cannot check a signature whose digest the headers do not name, or
		// any below a header that it does not know. Version 6 signatures, which
		// it does not know either, need no header (RFC 9580, section 7).
		if name := digestName(m.hash); m.err == nil && (m.sig == nil || m.sig.Version < 6) && !slices.Contains(digests, name) {
			m.err = fmt.Errorf("%w: digest %s is not named in the message's Hash header", ErrMalformed, name)
		}
	}
	v, err := verifyAll(context.Background(), sigs, bytes.NewReader(canonical), opts)
	if err != nil {
		return v, err
	}
	v.Text = text
	return v, nil
}

// IsClearsigned reports whether data starts like a clear-signed message.
func IsClearsigned(data []byte) bool {
	line, _ := cutLine(data)
	return line == clearBegin
}

// splitClearsigned splits a clear-signed message into the signed text, the same text with
// the line endings that are hashed (CR LF, none after the last line; RFC 9580, section
// 7.2), the armor of the signature, and the digests that the headers name. It returns no
// digests if a header names one that gpgv 2.2 does not know.
func splitClearsigned(data []byte) (text, canonical, armor []byte, digests []string, err error) {
	line, rest := cutLine(data)
	if line != clearBegin {
		return nil, nil, nil, nil, fmt.Errorf("%w: expected %q in the first line, found %q", ErrNoSignature, clearBegin, excerpt.Of(line))
	}
	unknown := false
	for n := 0; ; n++ { // headers
		if len(rest) == 0 || n > maxSignatures {
			return nil, nil, nil, nil, fmt.Errorf("%w: clear-signed message has no blank line after its headers", ErrMalformed)
		}
		var raw []byte
		raw, rest, _ = bytes.Cut(rest, []byte("\n"))
		line := string(bytes.TrimSuffix(raw, []byte("\r")))
		if line == "" {
			break
		}
		names, ok := strings.CutPrefix(line, "Hash: ")
		if !ok {
			return nil, nil, nil, nil, fmt.Errorf("%w: clear-signed message has header %q, expected only Hash", ErrMalformed, excerpt.Of(line))
		}
		for name := range strings.SplitSeq(names, ",") {
			switch name = strings.TrimSpace(name); name {
			case "MD5", "SHA1", "RIPEMD160", "SHA224", "SHA256", "SHA384", "SHA512":
				digests = append(digests, name)
			default:
				unknown = true
			}
		}
	}
	if unknown {
		digests = nil
	}
	text = make([]byte, 0, len(rest))
	canonical = make([]byte, 0, len(rest)+len(rest)/32)
	for n := 0; ; n++ {
		if len(rest) == 0 {
			return nil, nil, nil, nil, fmt.Errorf("%w: clear-signed message has no signature block", ErrMalformed)
		}
		armor = rest
		var raw []byte
		raw, rest, _ = bytes.Cut(rest, []byte("\n"))
		if len(raw) > maxLine {
			return nil, nil, nil, nil, fmt.Errorf("%w: line %d of the clear-signed text has %d bytes, expected at most %d", ErrMalformed, n+1, len(raw), maxLine)
		}
		line := bytes.TrimRight(raw, " \t\r")
		if len(line) > 0 && line[0] == '-' {
			if string(line) == sigBegin {
				if IsClearsigned(bytes.TrimLeft(rest, "\r\n")) {
					return nil, nil, nil, nil, fmt.Errorf("%w: a second clear-signed message", ErrMalformed)
				}
				return text, canonical, armor, digests, nil
			}
			if len(raw) < 2 || raw[1] != ' ' {
				return nil, nil, nil, nil, fmt.Errorf("%w: line %d of the clear-signed text begins with an unescaped dash: %q", ErrMalformed, n+1, excerpt.Of(string(line)))
			}
			line = bytes.TrimRight(raw[2:], " \t\r")
		}
		if bytes.ContainsAny(line, "\x00\r") {
			return nil, nil, nil, nil, fmt.Errorf("%w: line %d of the clear-signed text contains a NUL or carriage return", ErrMalformed, n+1)
		}
		if n > 0 {
			text = append(text, '\n')
			canonical = append(canonical, '\r', '\n')
		}
		text = append(text, line...)
		canonical = append(canonical, line...)
	}
}

// clearText prepares data for clear-signing. It returns the text as written to
// the message, with dashes escaped, and as signed: without escapes, white space
// at line ends and the last line feed.
func clearText(data []byte) (escaped, signed []byte, err error) {
	data = bytes.TrimSuffix(data, []byte("\n"))
	if bytes.ContainsAny(data, "\x00\r") {
		return nil, nil, fmt.Errorf("%w: text with a NUL or carriage return cannot be clear-signed", ErrMalformed)
	}
	for i, line := range bytes.Split(data, []byte("\n")) {
		if len(line) > maxLine {
			return nil, nil, fmt.Errorf("%w: line %d has %d bytes, at most %d can be clear-signed", ErrMalformed, i+1, len(line), maxLine)
		}
		if i > 0 {
			signed = append(signed, '\n')
		}
		if len(line) > 0 && line[0] == '-' || bytes.HasPrefix(line, []byte("From ")) {
			escaped = append(escaped, "- "...)
		}
		escaped = append(append(escaped, line...), '\n')
		signed = append(signed, bytes.TrimRight(line, " \t")...)
	}
	return escaped, signed, nil
}

// assembleClearsigned joins the escaped text and its armored signature.
func assembleClearsigned(escaped []byte, digest string, armored []byte) []byte {
	var out bytes.Buffer
	out.WriteString(clearBegin + "\nHash: " + digest + "\n\n")
	out.Write(escaped)
	out.Write(armored)
	return out.Bytes()
}
