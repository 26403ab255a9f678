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

// WithPeer stores the peer of a control connection in ctx; nil means that the peer is
// unknown. Use it in http.Server.ConnContext.
func WithPeer(ctx context.Context, p *Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// peerCaller identifies the caller on the control socket: root, the user of this process,
// or a member of the socket's group.
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

// tokenCaller identifies the caller of a network request by its bearer token (RFC 6750).
func (s *Server) tokenCaller(r *http.Request) (*control.Caller, error) {
	from := clientAddr(r, s.cfg.Conf.API.TrustedProxies)
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if secret = strings.TrimSpace(secret); !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return nil, fmt.Errorf("%w: the request has no token: expected the header Authorization: Bearer TOKEN", control.ErrToken)
	}
	by, err := s.control.Authenticate(r.Context(), secret, from)
	if errors.Is(err, control.ErrToken) {
		// Invalid tokens of others behind the same address never cause a valid one to be
		// refused.
		if !s.failures.allow(from) {
			return nil, fmt.Errorf("%w from %s: try again later", control.ErrManyTokens, from)
		}
		s.log.Warn("token refused", "from", from, "err", err)
	}
	return by, err
}

// maxHops bounds the chain of proxies that clientAddr follows.
const maxHops = 20

// clientAddr returns the address of a client. A trusted proxy names its own client in the
// last address of X-Forwarded-For. If that is a trusted proxy as well, the address before
// it counts, and so on.
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
	failEvery   = 6 * time.Second // then one more is allowed
	failSources = 10_000          // addresses that are remembered
)

// failures limits how many invalid tokens are accepted for checking from one address.
type failures struct {
	now func() time.Time

	mu   sync.Mutex
	from map[string]*rate.Limiter
}

// source is the key under which failures of an address are counted: its /64 network for
// IPv6.
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

// allow counts an invalid token, and reports whether its address is still within the
// limit.
func (f *failures) allow(from string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if f.from == nil {
		f.from = map[string]*rate.Limiter{}
	}
	if len(f.from) > failSources {
		for k, l := range f.from { // drop limiters that are full again
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
