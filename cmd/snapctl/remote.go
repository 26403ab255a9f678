package main

import (
	"fmt"
	"strings"

	"example.org/snapd/client"
	"example.org/snapd/internal/regfile"
)

// maxToken limits the size of a file with a token, in bytes.
const maxToken = 4 << 10

// server returns the URL of the server, or "" for the control socket. An explicit
// option takes precedence over the environment.
func (c *call) server() (string, error) {
	s := c.str("server")
	if s != "" && c.str("socket") != "" {
		return "", c.usagef("--server and --socket cannot be combined")
	}
	if s == "" && c.str("socket") == "" && c.str("config") == "" {
		s = c.p.getenv("SNAPCTL_SERVER")
	}
	return s, nil
}

// connect returns a client of the server or of the control socket.
func (c *call) connect() (*client.Client, error) {
	server, err := c.server()
	if err != nil {
		return nil, err
	}
	file := c.str("token-file")
	if server == "" {
		if file != "" {
			return nil, c.usagef("--token-file needs --server: the control socket takes no token")
		}
		s, err := c.socket()
		if err != nil {
			return nil, err
		}
		return client.Local(s), nil
	}
	if other := c.p.getenv("SNAPCTL_SERVER"); file == "" && (other == "" || other == server) {
		file = c.p.getenv("SNAPCTL_TOKEN_FILE") // for the server in the environment only
	}
	if file == "" && c.p.getenv("SNAPCTL_TOKEN_FILE") != "" {
		return nil, c.usagef("--server needs a token: expected --token-file, since $SNAPCTL_TOKEN_FILE is for $SNAPCTL_SERVER, which is another server")
	}
	if file == "" {
		return nil, c.usagef("--server needs a token: expected --token-file or $SNAPCTL_TOKEN_FILE")
	}
	token, err := readToken(file)
	if err != nil {
		return nil, err
	}
	return client.Remote(server, token, nil)
}

// readToken reads the first line of a file, and refuses a file that any user can read.
func readToken(name string) (string, error) {
	f, err := regfile.Open(name)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	if mode := st.Mode().Perm(); mode&0o007 != 0 {
		return "", fmt.Errorf("token file %s: %w (mode %04o), expected 0600 or 0640", name, errOpenToken, mode)
	}
	data, err := regfile.ReadAll(f, name, maxToken)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	token := strings.TrimSpace(line)
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("token file %s: %w", name, errNoToken)
	}
	return token, nil
}
