package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/lazyregexp"
)

// Strings is a string or a list of strings in TOML.
type Strings []string

// UnmarshalText decodes a string. The decoder itself handles lists, and does not support
// UnmarshalTOML for unions.
func (s *Strings) UnmarshalText(b []byte) error { *s = Strings{string(b)}; return nil }

// Duration is a length of time. It has the units of time.ParseDuration and "d"
// for 24 hours; empty is zero.
type Duration time.Duration

// D returns d as a time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// UnmarshalText parses "6h", "10d", "1d12h" or "".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// String returns the duration in the form that UnmarshalText parses.
func (d Duration) String() string {
	v := time.Duration(d)
	switch {
	case v == 0:
		return ""
	case v%(24*time.Hour) == 0:
		return strconv.Itoa(int(v/(24*time.Hour))) + "d"
	case v%time.Hour == 0:
		return strconv.Itoa(int(v/time.Hour)) + "h"
	}
	return v.String()
}

// MarshalText returns the duration in the form that UnmarshalText parses.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// ParseDuration parses a non-negative duration, with "d" for 24 hours.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	rest := s
	var sum time.Duration
	if i := strings.IndexByte(s, 'd'); i >= 0 {
		n, err := strconv.ParseUint(s[:i], 10, 20)
		if err != nil {
			return 0, fmt.Errorf("duration %q: expected a number of days before d, as in 10d", s)
		}
		sum = time.Duration(n) * 24 * time.Hour
		rest = s[i+1:]
	}
	if rest != "" {
		v, err := time.ParseDuration(rest)
		if err != nil || v < 0 {
			return 0, fmt.Errorf("duration %q: expected a form like 6h, 90m or 10d", s)
		}
		sum += v
	}
	return sum, nil
}

// Network is a network, or one address: "192.0.2.0/24", "::1".
type Network struct{ p netip.Prefix }

// UnmarshalText parses an address, or a network with its prefix length.
func (n *Network) UnmarshalText(b []byte) error {
	s := string(b)
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, aerr := netip.ParseAddr(s)
		if aerr != nil || a.Zone() != "" {
			return fmt.Errorf("%q: expected an address like 192.0.2.1, or a network like 192.0.2.0/24", s)
		}
		a = a.Unmap()
		p = netip.PrefixFrom(a, a.BitLen())
	}
	n.p = p.Masked()
	return nil
}

// Contains reports whether an address is in the network.
func (n Network) Contains(a netip.Addr) bool { return n.p.Contains(a) }

// Size is a number of bytes: "64MiB", "2GB", "4096".
type Size int64

// UnmarshalText parses a number with an optional unit (k, M, G, T; i for 1024).
func (z *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	*z = Size(v)
	return err
}

// String formats the size in the largest binary unit that divides it.
func (z Size) String() string {
	v := int64(z)
	for i, u := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if unit := int64(1) << (40 - 10*i); v != 0 && v%unit == 0 {
			return strconv.FormatInt(v/unit, 10) + u
		}
	}
	return strconv.FormatInt(v, 10)
}

// MarshalText returns the form that UnmarshalText parses.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

var sizeRE = lazyregexp.New(`^([0-9]{1,15})(?:\.([0-9]{1,3}))?\s*(?:([kKMGT])(i?)B?|B)?$`)

// ParseSize parses a number of bytes with an optional unit.
func ParseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	m := sizeRE().FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("size %q: expected a form like 64MiB, 2GB or 4096", s)
	}
	f, _ := strconv.ParseFloat(m[1]+"."+m[2]+"0", 64)
	if m[3] != "" {
		base := 1000.0
		if m[4] == "i" {
			base = 1024
		}
		for range strings.Index("KMGT", strings.ToUpper(m[3])) + 1 {
			f *= base
		}
	}
	if f > 1<<60 {
		return 0, fmt.Errorf("size %q: larger than 1 EiB", s)
	}
	return int64(f), nil
}

// Rate is a number of bytes per second: "20MiB/s".
type Rate int64

// UnmarshalText parses a size followed by "/s".
func (r *Rate) UnmarshalText(b []byte) error {
	v, err := ParseRate(string(b))
	*r = Rate(v)
	return err
}

// MarshalText returns the form that UnmarshalText parses.
func (r Rate) MarshalText() ([]byte, error) {
	if r == 0 {
		return nil, nil
	}
	return []byte(Size(r).String() + "/s"), nil
}

// ParseRate parses a size followed by "/s".
func ParseRate(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	t, ok := strings.CutSuffix(s, "/s")
	if !ok {
		return 0, fmt.Errorf("rate %q: expected a form like 20MiB/s", s)
	}
	v, err := ParseSize(strings.TrimSpace(t))
	if err != nil {
		return 0, fmt.Errorf("rate %q: expected a form like 20MiB/s", s)
	}
	return v, nil
}
