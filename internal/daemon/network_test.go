package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"example.org/snapd/internal/config"
)

// writeCertificate writes a self-signed certificate and its key.
func writeCertificate(t *testing.T, a config.API, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(0, 0), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	priv, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{a.TLSCert: {Type: "CERTIFICATE", Bytes: der}, a.TLSKey: {Type: "PRIVATE KEY", Bytes: priv}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The certificate of the control API is read again at a reload; one that cannot be used
// leaves the earlier one in use.
func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	d := &daemon{cfg: &config.Config{Server: config.Server{MaxConnections: 10}, API: config.API{
		Listen: "127.0.0.1:0", TLSCert: filepath.Join(dir, "cert.pem"), TLSKey: filepath.Join(dir, "key.pem"),
	}}}
	writeCertificate(t, d.cfg.API, "one")
	l, err := d.listenAPI()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	shown := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := shown(); got != "one" {
		t.Errorf("certificate of %s", got)
	}
	writeCertificate(t, d.cfg.API, "two")
	use, err := d.cert.read()
	if err != nil || shown() != "one" {
		t.Fatalf("before the reload is in effect: certificate of %s, %v", shown(), err)
	}
	if use(); shown() != "two" {
		t.Errorf("after a reload: certificate of %s", shown())
	}
	if err := os.WriteFile(d.cfg.API.TLSKey, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.cert.read(); err == nil || shown() != "two" {
		t.Errorf("after a reload with no key: certificate of %s, %v", shown(), err)
	}
	if _, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

// A member of socket_group may connect to the socket, and is known as one; others may
// not.
func TestSocketGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to connect as other users")
	}
	const nobody, group = 65534, 54321
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "s")
	l, err := listenSocket(path, strconv.Itoa(group))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 || st.Sys().(*syscall.Stat_t).Gid != group {
		t.Errorf("the socket: %v, %v", st, err)
	}
	// dial connects as another user. The thread, which alone is that user, ends with its
	// goroutine.
	dial := func(groups ...uint32) error {
		done := make(chan error)
		go func() {
			runtime.LockOSThread()
			var first uintptr
			if len(groups) > 0 {
				first = uintptr(unsafe.Pointer(&groups[0]))
			}
			for _, call := range [][4]uintptr{
				{syscall.SYS_SETGROUPS, uintptr(len(groups)), first}, {syscall.SYS_SETRESGID, nobody, nobody, nobody}, {syscall.SYS_SETRESUID, nobody, nobody, nobody},
			} {
				if _, _, errno := syscall.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
					done <- errno
					return
				}
			}
			runtime.KeepAlive(groups)
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err == nil {
				err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
				syscall.Close(fd)
			}
			done <- err
		}()
		return <-done
	}
	if err := dial(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("who is no member: %v", err)
	}
	if err := dial(100, group); err != nil {
		t.Fatalf("a member: %v", err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := peer(c)
	if p == nil || p.UID != nobody || !slices.Contains(p.Groups, group) {
		t.Errorf("the member is seen as %+v", p)
	}
}
