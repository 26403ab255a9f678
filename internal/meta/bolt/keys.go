package bolt

import (
	"encoding/binary"
	"time"

	"example.org/snapd/internal/meta/compact"
)

// Keys are concatenations of big-endian integers and strings ended by NUL, so
// that bbolt's order is the order of look-ups.

type key []byte

func (k key) u32(v uint32) key   { return binary.BigEndian.AppendUint32(k, v) }
func (k key) u64(v uint64) key   { return binary.BigEndian.AppendUint64(k, v) }
func (k key) str(s string) key   { return append(append(k, s...), 0) }
func (k key) raw(b []byte) key   { return append(k, b...) }
func (k key) one(b byte) key     { return append(k, b) }
func (k key) at(t time.Time) key { return k.u64(uint64(t.Unix())) }
func be32(b []byte) uint32       { return binary.BigEndian.Uint32(b) }
func be64(b []byte) uint64       { return binary.BigEndian.Uint64(b) }
func unix(b []byte) time.Time    { return time.Unix(int64(be64(b)), 0).UTC() }
func clone(b []byte) []byte      { return append([]byte(nil), b...) }

// enc and dec write and read compact values.
type (
	enc = compact.Enc
	dec = compact.Dec
)
