package sign

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"example.org/snapd/internal/excerpt"
)

// Packet types (RFC 9580, section 5).
const (
	tagSignature     = 2
	tagSecretKey     = 5
	tagPublicKey     = 6
	tagSecretSubkey  = 7
	tagMarker        = 10
	tagTrust         = 12
	tagUserID        = 13
	tagPublicSubkey  = 14
	tagUserAttribute = 17
	tagPadding       = 21
)

// rawPacket is one framed packet.
type rawPacket struct {
	tag  byte
	body []byte
	raw  []byte // header and body
}

// nextPacket splits the first packet off data. Partial and indeterminate lengths
// are refused: keys and signatures never use them (RFC 9580, section 4.2.1.4).
func nextPacket(data []byte) (p rawPacket, rest []byte, err error) {
	if len(data) == 0 {
		return p, nil, fmt.Errorf("%w: packet expected, found the end", ErrMalformed)
	}
	h := data[0]
	if h&0x80 == 0 {
		return p, nil, fmt.Errorf("%w: packet header expected, found byte 0x%02x", ErrMalformed, h)
	}
	var head, n int
	if h&0x40 != 0 { // current format
		p.tag = h & 0x3f
		switch {
		case len(data) < 2:
			return p, nil, truncated(p.tag)
		case data[1] < 192:
			head, n = 2, int(data[1])
		case data[1] < 224:
			if len(data) < 3 {
				return p, nil, truncated(p.tag)
			}
			head, n = 3, (int(data[1])-192)<<8+int(data[2])+192
		case data[1] == 255:
			if len(data) < 6 {
				return p, nil, truncated(p.tag)
			}
			head, n = 6, int(uint32(data[2])<<24|uint32(data[3])<<16|uint32(data[4])<<8|uint32(data[5]))
		default:
			return p, nil, fmt.Errorf("%w: packet of type %d has a partial length", ErrMalformed, p.tag)
		}
	} else { // old format
		p.tag = h >> 2 & 0x0f
		width := 1 << (h & 3) // octets of length: 1, 2, 4, or indeterminate
		if width == 8 {
			return p, nil, fmt.Errorf("%w: packet of type %d has no definite length", ErrMalformed, p.tag)
		}
		head = 1 + width
		if len(data) < head {
			return p, nil, truncated(p.tag)
		}
		for _, b := range data[1:head] {
			n = n<<8 | int(b)
		}
	}
	if n > len(data)-head {
		return p, nil, truncated(p.tag)
	}
	p.body, p.raw = data[head:head+n], data[:head+n]
	return p, data[head+n:], nil
}

func truncated(tag byte) error {
	return fmt.Errorf("%w: packet of type %d is cut short", ErrMalformed, tag)
}

// splitPackets splits data into at most max packets.
func splitPackets(data []byte, max int) ([]rawPacket, error) {
	var out []rawPacket
	for len(data) > 0 {
		p, rest, err := nextPacket(data)
		if err != nil {
			return nil, err
		}
		if len(out) == max {
			return nil, fmt.Errorf("%w: more than %d packets", ErrMalformed, max)
		}
		out, data = append(out, p), rest
	}
	return out, nil
}

// Armor block types.
const (
	armorPublicKey  = "PGP PUBLIC KEY BLOCK"
	armorPrivateKey = "PGP PRIVATE KEY BLOCK"
	armorSignature  = "PGP SIGNATURE"
)

// blanks removes the white space within a line of base64.
var blanks = strings.NewReplacer(" ", "", "\t", "")

var errNoArmor = errors.New("no armor")

// armorBlock is one decoded block.
type armorBlock struct {
	typ    string
	body   []byte
	before []byte // text before the block's first line
}

// nextArmor decodes the first armor block in data (RFC 9580, section 6.2). It returns
// errNoArmor if data has no block. A checksum must be correct if present, because gpgv
// refuses the block otherwise.
func nextArmor(data []byte) (b armorBlock, rest []byte, err error) {
	const begin, dashes = "-----BEGIN PGP ", "-----"
	start := 0
	for {
		i := bytes.Index(data[start:], []byte(begin))
		if i < 0 {
			return b, nil, errNoArmor
		}
		start += i
		if start == 0 || data[start-1] == '\n' {
			break
		}
		start += len(begin)
	}
	b.before = data[:start]
	line, rest := cutLine(data[start:])
	typ, ok := strings.CutSuffix(strings.TrimPrefix(line, "-----BEGIN "), dashes)
	if !ok {
		return b, nil, fmt.Errorf("%w: armor begins with %q", ErrMalformed, excerpt.Of(line))
	}
	b.typ = typ
	for { // headers, up to the blank line
		if len(rest) == 0 {
			return b, nil, fmt.Errorf("%w: armor %q ends in its headers", ErrMalformed, excerpt.Of(typ))
		}
		line, rest = cutLine(rest)
		if line == "" {
			break
		}
		if k, _, ok := strings.Cut(line, ":"); !ok || k == "" || strings.ContainsAny(k, " \t-") {
			return b, nil, fmt.Errorf("%w: armor header expected, found %q", ErrMalformed, excerpt.Of(line))
		}
	}
	var b64 strings.Builder
	sum := ""
	for {
		if len(rest) == 0 {
			return b, nil, fmt.Errorf("%w: armor %q has no end line", ErrMalformed, excerpt.Of(typ))
		}
		line, rest = cutLine(rest)
		if strings.HasPrefix(line, "-") {
			if line != "-----END "+typ+dashes {
				return b, nil, fmt.Errorf("%w: armor %q ends with %q", ErrMalformed, excerpt.Of(typ), excerpt.Of(line))
			}
			break
		}
		line = blanks.Replace(line) // gpgv ignores them
		switch {
		case sum != "":
			if line != "" {
				return b, nil, fmt.Errorf("%w: armor %q continues after its checksum", ErrMalformed, excerpt.Of(typ))
			}
		case len(line) == 5 && line[0] == '=':
			sum = line[1:]
		default:
			b64.WriteString(line)
		}
	}
	if b.body, err = base64.StdEncoding.DecodeString(b64.String()); err != nil {
		return b, nil, fmt.Errorf("%w: armor %q: %v", ErrMalformed, excerpt.Of(typ), err)
	}
	if sum != "" && sum != checksum(b.body) {
		return b, nil, fmt.Errorf("%w: armor %q has checksum %s, found %s", ErrMalformed, excerpt.Of(typ), excerpt.Of(sum), checksum(b.body))
	}
	return b, rest, nil
}

// cutLine cuts the first line off data, without its line ending and trailing
// white space, which armor ignores.
func cutLine(data []byte) (string, []byte) {
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	return string(bytes.TrimRight(line, " \t\r")), rest
}

// encodeArmor encodes data as an armor block with a checksum (rpm's parser needs
// one) and without headers.
func encodeArmor(typ string, data []byte) []byte {
	var out bytes.Buffer
	out.WriteString("-----BEGIN " + typ + "-----\n\n")
	b64 := base64.StdEncoding.EncodeToString(data)
	for len(b64) > 64 {
		out.WriteString(b64[:64])
		out.WriteByte('\n')
		b64 = b64[64:]
	}
	out.WriteString(b64)
	out.WriteString("\n=" + checksum(data) + "\n-----END " + typ + "-----\n")
	return out.Bytes()
}

// checksum returns the CRC-24 of RFC 9580, section 6.1.1, in Base64.
func checksum(data []byte) string {
	crc := uint32(0xb704ce)
	for _, b := range data {
		crc ^= uint32(b) << 16
		for range 8 {
			crc <<= 1
			if crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return base64.StdEncoding.EncodeToString([]byte{byte(crc >> 16), byte(crc >> 8), byte(crc)})
}
