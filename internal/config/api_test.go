package config

import (
	"strings"
	"testing"
)

// The control API does not listen where tokens could be read on the way, and a group
// gets only a socket that it can reach.
func TestAPI(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"off", "", ""},
		{"loopback", "[api]\nlisten = \"127.0.0.1:8443\"", ""},
		{"loopback of IPv6", "[api]\nlisten = \"[::1]:8443\"", ""},
		{"TLS", "[api]\nlisten = \"0.0.0.0:8443\"\ntls_cert = \"c.pem\"\ntls_key = \"k.pem\"", ""},
		{"plain", "[api]\nlisten = \"0.0.0.0:8443\"", "c.toml:2: listen: \"0.0.0.0:8443\": tokens would be sent in the clear"},
		{"plain on all", "[api]\nlisten = \":8443\"", "tokens would be sent in the clear"},
		{"plain by name", "[api]\nlisten = \"localhost:8443\"", "tokens would be sent in the clear"},
		{"no port", "[api]\nlisten = \"127.0.0.1\"", "expected host:port"},
		{"half of TLS", "[api]\nlisten = \"127.0.0.1:8443\"\ntls_cert = \"c.pem\"", "tls_cert and tls_key must be set together"},
		{"TLS and no listener", "[api]\ntls_cert = \"c.pem\"\ntls_key = \"k.pem\"", "has no effect without listen"},
		{"small uploads", "[api]\nmax_upload = \"1kB\"", "max_upload: 1000: expected at least 1MiB"},
		{"proxies", "[api]\nlisten = \"127.0.0.1:8443\"\ntrusted_proxies = [\"127.0.0.1\", \"2001:db8::/32\"]", ""},
		{"proxy by name", "[api]\nlisten = \"127.0.0.1:8443\"\ntrusted_proxies = [\"localhost\"]", "c.toml:3: api.trusted_proxies: \"localhost\": expected an address like 192.0.2.1, or a network like 192.0.2.0/24"},
		{"proxies and no listener", "[api]\ntrusted_proxies = [\"127.0.0.1\"]", "has no effect without listen"},
		{"group inside", "data_dir = \"/d\"\n[server]\nsocket_group = \"adm\"", "c.toml:3: socket_group: the socket /d/snapd.sock is inside the data directory"},
		{"group outside", "data_dir = \"/d\"\n[server]\nsocket = \"/run/x/snapd.sock\"\nsocket_group = \"adm\"", ""},
		{"keep", "[audit]\nkeep = \"90d\"", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("c.toml", []byte(c.text))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, expected %q", err, c.want)
			}
		})
	}
}
