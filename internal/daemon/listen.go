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
	"unsafe"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"example.org/snapd/internal/httpd"
)

// dialTime is how long to wait for an answer from a socket that may be stale.
const dialTime = 2 * time.Second

// listen opens the public listener and the control socket, or uses those that the
// service manager passed (sd_listen_fds(3)): a Unix socket is the control socket,
// any other the public listener.
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
		if public, err = listenPublic(d.cfg.Server.Listen); err != nil {
			return nil, control, fmt.Errorf("public listener: %w", err)
		}
	}
	if control == nil {
		if control, err = listenSocket(d.cfg.Server.Socket, d.cfg.Server.SocketGroup); err != nil {
			return public, nil, fmt.Errorf("control socket: %w", err)
		}
	}
	return public, control, nil
}

// listenSocket listens on a Unix socket of mode 0600, or 0660 if a group may use it. It
// replaces a socket on which no process answers, and refuses to replace a live one or a
// file of another kind.
func listenSocket(path, group string) (net.Listener, error) {
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
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
	// Bind the socket under another name first, so that it has its mode before anyone can
	// find it.
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// Restrict it under that name, too, in case others can access its directory.
	mask := syscall.Umask(0o077)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	syscall.Umask(mask)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(admit(tmp, gid), os.Rename(tmp, path)); err != nil {
		l.Close()
		return nil, errors.Join(err, os.Remove(tmp))
	}
	return &socket{l, path}, nil
}

// admit sets the mode of the socket, and its group if one is configured.
func admit(name string, gid *uint32) error {
	if gid == nil {
		return os.Chmod(name, 0o600)
	}
	if err := os.Chown(name, -1, int(*gid)); err != nil {
		return fmt.Errorf("socket_group: %w (the user that runs snapd must be a member of the group)", err)
	}
	return os.Chmod(name, 0o660)
}

// socket is a listener that removes its file.
type socket struct {
	*net.UnixListener
	path string
}

func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close removes the file of the socket, unless another listener has replaced it.
func (s *socket) Close() error {
	err := os.Remove(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(s.UnixListener.Close(), err)
}

// peer returns the process that connected to the control socket, or nil if it is unknown.
func peer(c net.Conn) *httpd.Peer {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil
	}
	var p *httpd.Peer
	if err := raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		p = &httpd.Peer{UID: cred.Uid, GID: cred.Gid, Groups: peerGroups(fd)}
	}); err != nil {
		return nil
	}
	return p
}

// maxGroups is the maximum number of groups of a process on Linux (NGROUPS_MAX).
const maxGroups = 65536

// peerGroups returns the supplementary groups of a peer (SO_PEERGROUPS), or nil if the
// kernel does not report them.
func peerGroups(fd uintptr) []uint32 {
	for n := 64; n <= maxGroups; n *= 8 {
		groups := make([]uint32, n)
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS, uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return groups[:size/4]
		case unix.ERANGE:
		default:
			return nil
		}
	}
	return nil
}
