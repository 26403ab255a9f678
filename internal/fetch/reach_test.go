package fetch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"example.org/snapd/internal/fetch/remote"
)

func TestReachOf(t *testing.T) {
	for text, want := range map[string]reach{
		"93.184.216.34": public, "1.1.1.1": public, "172.15.255.255": public, "172.32.0.0": public, "100.63.255.255": public, "100.128.0.0": public,
		"127.0.0.1": loopback, "127.255.255.255": loopback, "0.0.0.0": loopback, "0.1.2.3": special,
		"10.0.0.1": private, "172.16.0.1": private, "172.31.255.255": private, "192.168.1.1": private, "100.64.0.1": private, "198.18.0.1": private,
		"169.254.169.254": linkLocal, "224.0.0.1": special, "239.255.255.255": special, "240.0.0.1": special, "255.255.255.255": special,
		"192.0.0.8": special, "192.0.2.1": special, "198.51.100.1": special, "203.0.113.1": special,

		"2a00:1450:4001::1": public, "2606:4700::1111": public,
		"::": loopback, "::1": loopback, "fe80::1": linkLocal, "fe80::1%eth0": linkLocal, "febf::1": linkLocal, "fec0::1": private,
		"fc00::1": private, "fd12:3456::1": private, "ff02::1": special, "2001:db8::1": special, "3fff::1": special, "100::1": special, "4000::1": special,
		"::ffff:127.0.0.1": loopback, "::ffff:10.1.2.3": private, "::ffff:169.254.169.254": linkLocal, "::ffff:1.1.1.1": public, "::ffff:0.0.0.0": loopback,
		"::ffff:0:127.0.0.1": loopback, "::127.0.0.1": loopback, "::10.0.0.1": private,
		"64:ff9b::127.0.0.1": loopback, "64:ff9b::a9fe:a9fe": linkLocal, "64:ff9b::c0a8:101": private, "64:ff9b::1.1.1.1": public,
		"64:ff9b:1::127.0.0.1": loopback, "64:ff9b:1:2:3:4:10.0.0.1": private,
		"2002:7f00:1::": loopback, "2002:a00:1::1": private, "2002:a9fe:a9fe::": linkLocal, "2002:101:101::1": public,
		"2001::1": special, "2001:0:4136:e378:8000:63bf:80ff:fffe": special, // Teredo
		"2a00:1450::5efe:10.0.0.1": private, "2a00:1450::200:5efe:127.0.0.1": loopback, "fe80::5efe:1.1.1.1": linkLocal,
	} {
		if got := reachOf(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v, expected %v", text, got, want)
		}
	}
}

func TestLiteral(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1": "127.0.0.1", "127.0.0.1.": "127.0.0.1", "127.1": "127.0.0.1", "127.0.1": "127.0.0.1", "2130706433": "127.0.0.1",
		"0x7f000001": "127.0.0.1", "0x7f.1": "127.0.0.1", "0X7F.0.0.1": "127.0.0.1", "0177.0.0.01": "127.0.0.1", "017700000001": "127.0.0.1", "0": "0.0.0.0",
		"::1": "::1", "::ffff:127.0.0.1": "::ffff:127.0.0.1", "fe80::1%lo": "fe80::1%lo", "localhost": "::1", "LOCALHOST.": "::1", "a.b.localhost": "::1",
		"example.org": "", "": "", "1.2.3.4.5": "", "256.1.1.1": "", "1.256": "1.0.1.0", "1.2.65536": "", "127.0.0.08": "", "1_0.0.0.1": "", "0b1.0.0.1": "", "0o17.1": "",
		"4294967296": "", "mylocalhost": "", "1..2": "", "+1.1": "", "-1": "",
	} {
		got := ""
		if a, ok := literal(text); ok {
			got = a.String()
		}
		if got != want {
			t.Errorf("%q: %q, expected %q", text, got, want)
		}
	}
}

// Addresses of this machine that stand for others in tests.
const (
	publicIP    = "127.0.0.2"
	public2IP   = "127.0.0.3"
	privateIP   = "127.0.0.4"
	private2IP  = "127.0.0.5"
	linkLocalIP = "127.0.0.6"
	loopbackIP  = "127.0.0.1"
)

func testReach(a netip.Addr) reach {
	switch a.String() {
	case publicIP, public2IP:
		return public
	case privateIP, private2IP:
		return private
	case linkLocalIP:
		return linkLocal
	}
	return reachOf(a)
}

// world has a server at each address, and names for them that change.
type world struct {
	mu     sync.Mutex
	port   string
	names  map[string][]string // addresses of a name; the first is taken away at each look-up but for the last
	to     map[string]string   // Location by path
	served map[string]int      // requests by address
	client *Client
}

func newWorld(t *testing.T, addrs ...string) *world {
	t.Helper()
	w := &world{names: map[string][]string{}, to: map[string]string{}, served: map[string]int{}}
	for i, a := range addrs {
		if i == 0 {
			a += ":0"
		} else {
			a += ":" + w.port
		}
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		_, w.port, _ = net.SplitHostPort(l.Addr().String())
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.served[strings.TrimSuffix(l.Addr().String(), ":"+w.port)]++
			if to := w.to[r.URL.Path]; to != "" {
				rw.Header().Set("Location", strings.ReplaceAll(to, "PORT", w.port))
				rw.WriteHeader(http.StatusFound)
				return
			}
			io.WriteString(rw, "x")
		}))
		srv.Listener.Close()
		srv.Listener = l
		srv.Start()
		t.Cleanup(srv.Close)
	}
	w.client = client(t, Config{Retries: -1, reachOf: testReach, resolver: w.resolver(t)})
	return w
}

// name gives a name addresses, one for each look-up; the last one stays.
func (w *world) name(name string, addrs ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names[name] = addrs
}

func (w *world) redirect(path, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to[path] = to
}

func (w *world) asked(addr string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.served[addr]
}

// resolver asks a name server that answers from w.names.
func (w *world) resolver(t *testing.T) *net.Resolver {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(w.dns(buf[:n]), from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// dns answers a query for one name with A records; of anything else there is none.
func (w *world) dns(q []byte) []byte {
	end, name := 12, ""
	for q[end] != 0 {
		name += string(q[end+1:end+1+int(q[end])]) + "."
		end += 1 + int(q[end])
	}
	typ := binary.BigEndian.Uint16(q[end+1:])
	out := append([]byte{q[0], q[1], 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:end+5]...)
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.names[strings.TrimSuffix(name, ".")]
	if typ != 1 || len(list) == 0 {
		return out
	}
	for _, a := range strings.Split(list[0], " ") {
		out[7]++
		ip := netip.MustParseAddr(a).As4()
		out = append(append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), ip[:]...)
	}
	if len(list) > 1 {
		w.names[strings.TrimSuffix(name, ".")] = list[1:]
	}
	return out
}

// url makes a URL of a text with PORT in it.
func (w *world) url(s string) remote.URL { return remote.NewURL(strings.ReplaceAll(s, "PORT", w.port)) }

func (w *world) get(t *testing.T, scope *Scope, u string) error {
	t.Helper()
	_, _, err := w.client.GetBytes(t.Context(), Request{URLs: []remote.URL{w.url(u)}, Size: -1, MaxSize: 10, Scope: scope})
	return err
}

// TestRedirectReach: what a server redirects to is at a public address, or at one
// of its own kind, whatever is written in the URL.
func TestRedirectReach(t *testing.T) {
	for _, tt := range []struct {
		name, from, to string
		refused        string // what the error says of the address; "": followed
	}{
		{"public to public", publicIP, "http://" + public2IP + ":PORT/f", ""},
		{"public to itself", publicIP, "/f", ""},
		{"public to loopback", publicIP, "http://127.0.0.1:PORT/f", "127.0.0.1 is a loopback address, expected a public one"},
		{"short", publicIP, "http://127.1:PORT/f", "127.0.0.1 is a loopback address"},
		{"one number", publicIP, "http://2130706433:PORT/f", "127.0.0.1 is a loopback address"},
		{"unspecified", publicIP, "http://0.0.0.0:PORT/f", "0.0.0.0 is a loopback address"},
		{"IPv6", publicIP, "http://[::1]:PORT/f", "::1 is a loopback address"},
		{"IPv6 unspecified", publicIP, "http://[::]:PORT/f", ":: is a loopback address"},
		{"mapped", publicIP, "http://[::ffff:127.0.0.1]:PORT/f", "is a loopback address"},
		{"NAT64", publicIP, "http://[64:ff9b::a9fe:a9fe]/latest/meta-data/", "is a link-local address"},
		{"link-local", publicIP, "http://169.254.169.254/latest/meta-data/", "169.254.169.254 is a link-local address"},
		{"link-local with zone", publicIP, "http://[fe80::1%25lo]/f", "is a link-local address"},
		{"private", publicIP, "http://10.0.0.1/f", "10.0.0.1 is a private address"},
		{"multicast", publicIP, "http://224.0.0.1/f", "224.0.0.1 is a reserved address"},
		{"localhost", publicIP, "http://localhost:PORT/f", "::1 is a loopback address"},
		{"a name in localhost", publicIP, "http://x.LOCALHOST.:PORT/f", "::1 is a loopback address"},
		{"a name of loopback", publicIP, "http://inside.example.org:PORT/f", "127.0.0.1 is a loopback address"},
		{"a name of private", publicIP, "http://private.example.org:PORT/f", privateIP + " is a private address"},
		{"a public name", publicIP, "http://public.example.org:PORT/f", ""},
		{"a name of both", publicIP, "http://both.example.org:PORT/f", ""},
		{"over a public one", publicIP, "http://" + public2IP + ":PORT/inside", "127.0.0.1 is a loopback address"},
		{"to another port", publicIP, "http://127.0.0.1:22/", "127.0.0.1 is a loopback address"},

		{"loopback to loopback", loopbackIP, "http://127.0.0.1:PORT/f", ""},
		{"loopback to public", loopbackIP, "http://" + publicIP + ":PORT/f", ""},
		{"loopback to private", loopbackIP, "http://" + privateIP + ":PORT/f", "expected a public or loopback one"},
		{"loopback over public to loopback", loopbackIP, "http://" + publicIP + ":PORT/inside", "127.0.0.1 is a loopback address, expected a public one"},
		{"private to private", privateIP, "http://" + private2IP + ":PORT/f", ""},
		{"private to itself", privateIP, "/f", ""},
		{"private to loopback", privateIP, "http://127.0.0.1:PORT/f", "expected a public or private one"},
		{"private to link-local", privateIP, "http://" + linkLocalIP + ":PORT/f", "is a link-local address"},
		{"a private name to itself", "private.example.org", "/f", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, loopbackIP, publicIP, public2IP, privateIP, private2IP, linkLocalIP)
			w.name("inside.example.org", "127.0.0.1")
			w.name("private.example.org", privateIP)
			w.name("public.example.org", public2IP)
			w.name("both.example.org", "127.0.0.1 "+public2IP)
			w.redirect("/away", tt.to)
			w.redirect("/inside", "http://127.0.0.1:PORT/f")
			err := w.get(t, nil, "http://"+tt.from+":PORT/away")
			switch {
			case tt.refused == "":
				if err != nil {
					t.Error(err)
				}
			case !errors.Is(err, ErrRefused) || !strings.Contains(fmt.Sprint(err), tt.refused) || !strings.Contains(fmt.Sprint(err), "a redirect to"):
				t.Errorf("%v, expected %q", err, tt.refused)
			case tt.from == publicIP && w.asked(loopbackIP) > 0:
				t.Error("the loopback address was asked")
			}
		})
	}
}

// TestRebinding: a name that was looked up before is looked up for each
// connection, and a connection that another mirror may have is not used.
func TestRebinding(t *testing.T) {
	w := newWorld(t, loopbackIP, publicIP)
	// The first answer is for the configured URL, what follows for the redirect.
	w.name("mirror.example.org", publicIP, loopbackIP)
	w.redirect("/away", "http://mirror.example.org:PORT/f")
	if err := w.get(t, nil, "http://mirror.example.org:PORT/away"); !errors.Is(err, ErrRefused) {
		t.Errorf("a name that changed: %v", err)
	}
	w.client.Close()
	// A mirror that is configured to be here leaves a connection behind.
	if err := w.get(t, nil, "http://mirror.example.org:PORT/f"); err != nil {
		t.Fatal(err)
	}
	w.name("other.example.org", publicIP)
	if err := w.get(t, nil, "http://other.example.org:PORT/away"); !errors.Is(err, ErrRefused) {
		t.Errorf("over a connection that is open: %v", err)
	}
	if n := w.asked(loopbackIP); n != 1 {
		t.Errorf("loopback was asked %d times", n)
	}
}

// TestToldReach: URLs that the configuration does not name lead to public
// addresses, or where the configured ones of the mirror are.
func TestToldReach(t *testing.T) {
	w := newWorld(t, loopbackIP, publicIP, privateIP, private2IP)
	listed := w.url("http://" + private2IP + ":PORT/f").Listed()
	foreign := w.url("http://" + private2IP + ":PORT/f").Foreign()
	w.name("mirror.example.org", publicIP, privateIP)
	for _, tt := range []struct {
		name       string
		configured string // asked before
		u          remote.URL
		refused    bool
	}{
		{"nothing known", "", listed, true},
		{"nothing known", "", foreign, true},
		{"by a public mirror", publicIP, listed, true},
		{"by a public mirror", publicIP, foreign, true},
		{"by a private mirror", privateIP, listed, false},
		{"by a private mirror", privateIP, foreign, false},
		{"loopback by a private mirror", privateIP, w.url("http://127.0.0.1:PORT/f").Listed(), true},
		{"public by a public mirror", publicIP, w.url("http://" + publicIP + ":PORT/f").Listed(), false},
		{"configured", publicIP, w.url("http://" + private2IP + ":PORT/f"), false},
		{"a file", publicIP, w.url("file:///etc/hostname").Listed(), true},
		{"a path", publicIP, w.url("/etc/hostname").Foreign(), true},
	} {
		var scope Scope
		if tt.configured != "" {
			if err := w.get(t, &scope, "http://"+tt.configured+":PORT/f"); err != nil {
				t.Fatal(err)
			}
		}
		_, _, err := w.client.GetBytes(t.Context(), Request{URLs: []remote.URL{tt.u}, Tree: "/etc", Size: -1, MaxSize: 1000, Scope: &scope})
		if errors.Is(err, ErrRefused) != tt.refused || !tt.refused && err != nil {
			t.Errorf("%s, %s: %v", tt.name, tt.u, err)
		}
	}
	// A name that was public and is private now vouches for nothing.
	var scope Scope
	for range 2 {
		if err := w.get(t, &scope, "http://mirror.example.org:PORT/f"); err != nil {
			t.Fatal(err)
		}
		w.client.Close() // its connections
	}
	if may := scope.reach(); may != public {
		t.Errorf("may lead to %v", may)
	}
}

// TestReachByDefault: nothing has to be configured for all of this.
func TestReachByDefault(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") })
	c := client(t, Config{Retries: -1})
	for _, told := range []remote.URL{remote.NewURL(u.URL).Listed(), remote.NewURL(u.URL).Foreign()} {
		if _, _, err := c.GetBytes(t.Context(), Request{URLs: []remote.URL{told}, Size: -1, MaxSize: 10}); !errors.Is(err, ErrRefused) {
			t.Errorf("%v", err)
		}
	}
	if len(u.asked()) > 0 {
		t.Errorf("asked %v", u.asked())
	}
}

// TestReachThroughProxy: the proxy may be anywhere; of what is behind it, the
// URL's host is judged. The child has the environment, since Go reads it once.
func TestReachThroughProxy(t *testing.T) {
	if os.Getenv("FETCH_TEST_REDIRECT") != "" {
		_, _, err := New(Config{Retries: -1}).GetBytes(t.Context(), Request{URLs: remote.NewURLs("http://mirror.example.org/f"), Size: -1, MaxSize: 100})
		fmt.Printf("got %v\n", err)
		return
	}
	for to, want := range map[string]string{
		"http://other.example.org/g": "got <nil>",
		"http://169.254.169.254/g":   "169.254.169.254 is a link-local address",
		"http://10.1/g":              "10.0.0.1 is a private address",
		"http://localhost/g":         "::1 is a loopback address",
		"http://[64:ff9b::7f00:1]/g": "is a loopback address",
		"http://0x7f000001/g":        "127.0.0.1 is a loopback address",
	} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.RequestURI, "/f") {
				http.Redirect(w, r, to, http.StatusFound)
			}
		}))
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestReachThroughProxy$", "-test.v")
		cmd.Env = append(os.Environ(), "FETCH_TEST_REDIRECT="+to, "http_proxy="+proxy.URL, "no_proxy=", "NO_PROXY=", "HTTP_PROXY=")
		out, err := cmd.CombinedOutput()
		proxy.Close()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, expected %q in\n%s", to, err, want, out)
		}
	}
}
