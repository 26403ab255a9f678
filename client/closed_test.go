package client_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
)

// The error for a socket that the user may not open differs from that for a socket on
// which nothing answers.
func TestClosedSocket(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may use every socket")
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	err = client.Local(path).Call(t.Context(), "status", api.Empty{}, nil, nil)
	if !errors.Is(err, client.ErrNoDaemon) || !errors.Is(err, fs.ErrPermission) || !strings.HasPrefix(err.Error(), "control socket "+path+" is closed to this user: ") {
		t.Errorf("%v", err)
	}
}
