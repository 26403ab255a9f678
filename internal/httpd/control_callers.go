package httpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
)

// Peer is who connected to the control socket, as the kernel says (unix(7),
// SO_PEERCRED and SO_PEERGROUPS).
type Peer struct {
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary
}

type peerKey struct{}

// WithPeer stores the peer of a control connection; nil: it is unknown. It is for
// http.Server.ConnContext.
func WithPeer(ctx context.Context, p *Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// peerCaller is who asks on the control socket: root, the user of this process, or a
// member of the socket's group.
func (s *Server) peerCaller(r *http.Request) (*control.Caller, error) {
	p, ok := r.Context().Value(peerKey{}).(*Peer)
	if !ok || p == nil {
		return nil, fmt.Errorf("control socket: %w: the caller's user is unknown", control.ErrForbidden)
	}
	member := s.cfg.SocketGID != nil && (p.GID == *s.cfg.SocketGID || slices.Contains(p.Groups, *s.cfg.SocketGID))
	own := uint32(unix.Geteuid())
	if p.UID != 0 && p.UID != own && !member {
		return nil, fmt.Errorf("control socket: %w: user %d may not control this snapd, only user %d, root and members of socket_group", control.ErrForbidden, p.UID, own)
	}
	return &control.Caller{Who: "user " + s.users.name(p.UID), From: "socket", Local: true, Role: api.RoleAdmin}, nil
}

// users remembers the names of users.
type users struct{ names sync.Map }

// name returns "NAME (UID)", or "UID" for a user without a name.
func (u *users) name(uid uint32) string {
	if name, ok := u.names.Load(uid); ok {
		return name.(string)
	}
	id := strconv.FormatUint(uint64(uid), 10)
	name := id
	if found, err := user.LookupId(id); err == nil {
		name = fmt.Sprintf("%s (%s)", found.Username, id)
	}
	u.names.Store(uid, name)
	return name
}

// tokenCaller is who asks over the network: the owner of a bearer token (RFC 6750).
func (s *Server) tokenCaller(r *http.Request) (*control.Caller, error) {
	from := clientAddr(r, s.cfg.Conf.API.TrustedProxies)
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if secret = strings.TrimSpace(secret); !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return nil, fmt.Errorf("%w: the request has no token: expected the header Authorization: Bearer TOKEN", control.ErrToken)
	}
	by, err := s.control.Authenticate(r.Context(), secret, from)
	if errors.Is(err, control.ErrToken) {
		// A good token is never refused for the bad ones of others behind the same address.
		if !s.failures.allow(from) {
			return nil, fmt.Errorf("%w from %s: try again later", control.ErrManyTokens, from)
		}
		s.log.Warn("token refused", "from", from, "err", err)
	}
	return by, err
}

// maxHops bounds the proxies that a request is followed through.
const maxHops = 20

// clientAddr is the address of a client. A trusted proxy says who connected to it: the
// last address of X-Forwarded-For, and so on where that is such a proxy as well.
func clientAddr(r *http.Request, trusted []config.Network) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	at, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	at = at.Unmap().WithZone("")
	hops := r.Header.Values("X-Forwarded-For")
	for range maxHops {
		if len(hops) == 0 || !slices.ContainsFunc(trusted, func(n config.Network) bool { return n.Contains(at) }) {
			break
		}
		rest, last, more := cutLast(hops[len(hops)-1], ",")
		if hops = hops[:len(hops)-1]; more {
			hops = append(slices.Clip(hops), rest)
		}
		next, err := netip.ParseAddr(strings.TrimSpace(last))
		if err != nil || next.Zone() != "" { // a zone is any text, and has no meaning here
			break
		}
		at = next.Unmap()
	}
	return at.String()
}

// cutLast cuts s around its last sep; without one, last is s.
func cutLast(s, sep string) (rest, last string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// Bounds of failed tokens from one address.
const (
	failBurst   = 10
	failEvery   = 6 * time.Second // one more is allowed
	failSources = 10_000          // addresses that are remembered
)

// failures limits how many tokens that are not valid are looked at from one address.
type failures struct {
	now func() time.Time

	mu   sync.Mutex
	from map[string]*rate.Limiter
}

// source is the address that failures are counted for: a network of 64 bits for IPv6.
func source(from string) string {
	ip, err := netip.ParseAddr(from)
	if err != nil || ip.Is4() {
		return from
	}
	p, err := ip.Prefix(64)
	if err != nil {
		return from
	}
	return p.String()
}

// allow notes a token that is not valid, and reports whether there were few from its
// address.
func (f *failures) allow(from string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if f.from == nil {
		f.from = map[string]*rate.Limiter{}
	}
	if len(f.from) > failSources {
		for k, l := range f.from { // those that are as good as new
			if l.TokensAt(now) >= failBurst {
				delete(f.from, k)
			}
		}
		if len(f.from) > failSources {
			f.from = map[string]*rate.Limiter{}
		}
	}
	k := source(from)
	l := f.from[k]
	if l == nil {
		l = rate.NewLimiter(rate.Every(failEvery), failBurst)
		f.from[k] = l
	}
	return l.AllowN(now, 1)
}
