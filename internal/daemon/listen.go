package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// dialTime is how long a socket that may be stale has to answer.
const dialTime = 2 * time.Second

// listen opens the public listener and the control socket, or takes those that
// the service manager passed (sd_listen_fds(3)): a Unix socket is for control,
// any other for the public.
func (d *daemon) listen() (public, control net.Listener, err error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, nil, fmt.Errorf("listeners from the service manager: %w", err)
	}
	defer func() {
		if err != nil {
			for _, l := range []net.Listener{public, control} {
				if l != nil {
					l.Close()
				}
			}
		}
	}()
	for _, l := range passed {
		slot := &public
		if _, ok := l.(*net.UnixListener); ok {
			slot = &control
		}
		if l == nil {
			continue
		}
		if *slot != nil {
			return public, control, fmt.Errorf("listeners from the service manager: %s and %s for the same purpose", (*slot).Addr(), l.Addr())
		}
		*slot = l
	}
	if public == nil {
		if public, err = net.Listen("tcp", d.cfg.Server.Listen); err != nil {
			return nil, control, fmt.Errorf("public listener: %w", err)
		}
	}
	if control == nil {
		if control, err = listenSocket(d.cfg.Server.Socket); err != nil {
			return public, nil, fmt.Errorf("control socket: %w", err)
		}
	}
	return public, control, nil
}

// listenSocket listens on a Unix socket of mode 0600. One that nobody answers
// at is replaced; a live one, and a file of another kind, is refused.
func listenSocket(path string) (net.Listener, error) {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case st.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is not a socket", path)
	default:
		c, err := net.DialTimeout("unix", path, dialTime)
		if err == nil {
			c.Close()
			return nil, fmt.Errorf("%s: %w", path, ErrRunning)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("%s may be in use: %w", path, err)
		}
	}
	// Bound under another name first: it has its mode before anyone can find it.
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// Also under that name, should its directory be open to others.
	mask := syscall.Umask(0o077)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	syscall.Umask(mask)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		l.Close()
		return nil, errors.Join(err, os.Remove(tmp))
	}
	return &socket{l, path}, nil
}

// socket is a listener whose file goes with it.
type socket struct {
	*net.UnixListener
	path string
}

func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close removes the socket's file, unless another listener has replaced it.
func (s *socket) Close() error {
	err := os.Remove(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(s.UnixListener.Close(), err)
}

// peer reads who connected to the control socket (unix(7), SO_PEERCRED); nil
// when that cannot be told.
func peer(c net.Conn) *unix.Ucred {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil
	}
	if err != nil {
		return nil
	}
	return cred
}
