// Package compact is the compact encoding of facts and blocks of stanzas, of which the
// metadata engines store millions.
package compact

import "encoding/binary"

// Enc collects compact values: varints and length-prefixed strings.
type Enc []byte

func (e *Enc) Uint(v uint64)  { *e = binary.AppendUvarint(*e, v) }
func (e *Enc) Str(s string)   { e.Uint(uint64(len(s))); *e = append(*e, s...) }
func (e *Enc) Fixed(b []byte) { *e = append(*e, b...) }

// Dec reads what Enc wrote.
type Dec struct {
	B   []byte // the bytes that are left
	Bad bool   // the bytes did not have the expected form
}

func (d *Dec) Uint() uint64 {
	v, n := binary.Uvarint(d.B)
	if n <= 0 {
		d.Bad = true
		d.B = nil
		return 0
	}
	d.B = d.B[n:]
	return v
}

func (d *Dec) Fixed(n int) []byte {
	if n > len(d.B) || n < 0 {
		d.Bad = true
		d.B = nil
		return make([]byte, min(max(n, 0), 64))
	}
	v := d.B[:n]
	d.B = d.B[n:]
	return v
}

func (d *Dec) Str() string {
	n := d.Uint()
	if n > uint64(len(d.B)) {
		d.Bad = true
		return ""
	}
	return string(d.Fixed(int(n)))
}
