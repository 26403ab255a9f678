package fetch

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// reach is a set of kinds of addresses. A URL that a server names, in a redirect, a
// mirror list or an index, may lead to a public address or to an address of the same kind
// as the server's: a public server must not use us to reach this machine or its network.
// URLs from the configuration may lead anywhere.
type reach uint8

const (
	public reach = 1 << iota
	loopback
	linkLocal
	private
	special  // multicast, reserved, for documentation
	anywhere = public | loopback | linkLocal | private | special
)

func (r reach) String() string {
	var names []string
	for i, name := range []string{"public", "loopback", "link-local", "private", "reserved"} {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " or ")
}

// kinds are the blocks that are not public, from the IANA registries of
// special-purpose addresses and RFC 6890. The first block that contains an
// address counts.
var kinds = []struct {
	prefix netip.Prefix
	reach  reach
}{
	{netip.MustParsePrefix("0.0.0.0/32"), loopback}, // connects to this machine
	{netip.MustParsePrefix("0.0.0.0/8"), special},
	{netip.MustParsePrefix("10.0.0.0/8"), private},
	{netip.MustParsePrefix("100.64.0.0/10"), private}, // shared between a provider and its customers
	{netip.MustParsePrefix("127.0.0.0/8"), loopback},
	{netip.MustParsePrefix("169.254.0.0/16"), linkLocal},
	{netip.MustParsePrefix("172.16.0.0/12"), private},
	{netip.MustParsePrefix("192.0.0.0/24"), special},
	{netip.MustParsePrefix("192.0.2.0/24"), special},
	{netip.MustParsePrefix("192.88.99.0/24"), special},
	{netip.MustParsePrefix("192.168.0.0/16"), private},
	{netip.MustParsePrefix("198.18.0.0/15"), private}, // benchmarks; addresses made up by local proxies
	{netip.MustParsePrefix("198.51.100.0/24"), special},
	{netip.MustParsePrefix("203.0.113.0/24"), special},
	{netip.MustParsePrefix("224.0.0.0/4"), special},
	{netip.MustParsePrefix("240.0.0.0/4"), special},

	{netip.MustParsePrefix("::/128"), loopback},
	{netip.MustParsePrefix("::1/128"), loopback},
	{netip.MustParsePrefix("100::/64"), special},
	{netip.MustParsePrefix("2001::/23"), special},
	{netip.MustParsePrefix("2001:db8::/32"), special},
	{netip.MustParsePrefix("3fff::/20"), special},
	{netip.MustParsePrefix("5f00::/16"), special},
	{netip.MustParsePrefix("fc00::/7"), private},
	{netip.MustParsePrefix("fe80::/10"), linkLocal},
	{netip.MustParsePrefix("fec0::/10"), private},
	{netip.MustParsePrefix("ff00::/8"), special},
}

// embedded are the IPv6 blocks whose addresses contain an IPv4 address, and the
// byte at which it starts.
var embedded = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("::ffff:0:0/96"), 12},   // mapped
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // translated (RFC 2765)
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64 (RFC 6052)
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},  // local NAT64 (RFC 8215)
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4 (RFC 3056)
	{netip.MustParsePrefix("::/96"), 12},           // compatible (RFC 4291)
}

// reachOf returns the kind of a.
func reachOf(a netip.Addr) reach {
	a = a.WithZone("")
	for _, k := range kinds {
		if k.prefix.Contains(a) {
			return k.reach
		}
	}
	if a.Is4() {
		return public
	}
	b := a.As16()
	for _, e := range embedded {
		if e.prefix.Contains(a) {
			return reachOf(netip.AddrFrom4([4]byte(b[e.at : e.at+4])))
		}
	}
	if b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe { // ISATAP (RFC 5214)
		return reachOf(netip.AddrFrom4([4]byte(b[12:])))
	}
	if a.Is4In6() || b[0]&0xe0 != 0x20 { // nothing outside of 2000::/3 is global unicast
		return special
	}
	return public
}

// literal parses the host of a URL if it is an address, in any form that resolvers
// accept, or a name that always means this machine. Other names are known only once they
// are connected to.
func literal(host string) (netip.Addr, bool) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return netip.IPv6Loopback(), true
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a, true
	}
	// inet_aton(3): up to four numbers, possibly octal or hexadecimal, of which
	// the last fills the remaining bytes.
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var all uint64
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 0, 32)
		if err != nil || strings.ContainsAny(p, "_ob") && !strings.HasPrefix(p, "0x") {
			return netip.Addr{}, false
		}
		most := uint64(0xff)
		if i == len(parts)-1 {
			most = 1<<(8*(5-len(parts))) - 1
			all = all<<(8*(5-len(parts))) | n
		} else {
			all = all<<8 | n
		}
		if n > most {
			return netip.Addr{}, false
		}
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(all))
	return netip.AddrFrom4(b), true
}

// addrError is an address that a connection may not go to.
type addrError struct {
	addr    netip.Addr
	is, may reach
}

func (e *addrError) Error() string {
	return fmt.Sprintf("%s is a %s address, expected a %s one", e.addr, e.is, e.may)
}

// guard is the Control function of a net.Dialer. It refuses addresses that are not in
// may. At that point the name has been resolved, and the connection goes to no other
// address.
func (c *Client) guard(may reach) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("address %q: %w", address, err)
		}
		if is := c.cfg.reachOf(a.Addr().Unmap()); is&may == 0 {
			return &addrError{a.Addr(), is, may}
		}
		return nil
	}
}

// Scope is the set of places where the servers in a mirror's configuration are: URLs that
// these servers name may lead there, too. The zero value is an empty set; a nil Scope
// stays empty.
type Scope struct {
	mu    sync.Mutex
	hosts map[string]reach
}

// maxScope bounds the hosts of a Scope; configurations name fewer.
const maxScope = 64

// note remembers where a host was reached. A host that was once public stays public,
// because its name may later have been pointed at us.
func (s *Scope) note(u *url.URL, at reach) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch old, ok := s.hosts[u.Host]; {
	case at == public, ok && old != public:
	case ok, len(s.hosts) >= maxScope:
		return
	}
	if s.hosts == nil {
		s.hosts = make(map[string]reach)
	}
	s.hosts[u.Host] = at
}

// reach returns where the URLs that the servers name may lead.
func (s *Scope) reach() reach {
	may := public
	if s == nil {
		return may
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.hosts {
		may |= at
	}
	return may
}
