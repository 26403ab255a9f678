package regfile_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/regfile"
)

// promptly fails the test when f takes longer than reading a small file can.
func promptly(t *testing.T, what string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: no answer after 10 s", what)
		return nil
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	must(os.WriteFile(at("file"), []byte("text"), 0o600))
	must(os.Mkdir(at("dir"), 0o700))
	must(unix.Mkfifo(at("fifo"), 0o600))
	must(os.Symlink("file", at("link")))
	must(os.Symlink("fifo", at("fifolink")))
	must(os.Symlink("/dev/zero", at("device")))
	l, err := net.Listen("unix", at("socket"))
	must(err)
	defer l.Close()
	must(os.WriteFile(at("giant"), nil, 0o600))
	must(os.Truncate(at("giant"), 20<<30))

	for _, c := range []struct {
		name   string
		is     error  // of Read; nil: it succeeds
		isIn   error  // of ReadIn
		text   string // in both errors
		textIn string // in the error of ReadIn, where it differs
	}{
		{name: "file"},
		{name: "absent", is: fs.ErrNotExist, isIn: fs.ErrNotExist},
		{name: "dir", is: syscall.EISDIR, isIn: syscall.EISDIR, text: "dir: is a directory"},
		{name: "fifo", is: regfile.ErrNotRegular, isIn: regfile.ErrNotRegular, text: "fifo: not a regular file: it is a FIFO"},
		{name: "socket", is: regfile.ErrNotRegular, isIn: regfile.ErrNotRegular, text: "it is a socket"},
		{name: "link", isIn: regfile.ErrNotRegular, text: "it is a symbolic link"},
		{name: "fifolink", is: regfile.ErrNotRegular, isIn: regfile.ErrNotRegular, text: "it is a FIFO", textIn: "it is a symbolic link"},
		{name: "device", is: regfile.ErrNotRegular, isIn: regfile.ErrNotRegular, text: "it is a device", textIn: "it is a symbolic link"},
		{name: "giant", is: regfile.ErrTooLarge, isIn: regfile.ErrTooLarge, text: "giant: too large: 21474836480 bytes, expected at most 100"},
	} {
		check := func(what string, is error, text string, read func() ([]byte, error)) {
			t.Helper()
			err := promptly(t, what, func() error {
				data, err := read()
				if err == nil && string(data) != "text" {
					err = fmt.Errorf("content %q", data)
				}
				return err
			})
			if !errors.Is(err, is) || is != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, expected %v: %s", what, err, is, text)
			}
		}
		check("read "+c.name, c.is, c.text, func() ([]byte, error) { return regfile.Read(at(c.name), 100) })
		if c.textIn == "" {
			c.textIn = c.text
		}
		check("read in root "+c.name, c.isIn, c.textIn, func() ([]byte, error) { return regfile.ReadIn(root, c.name, 100) })
	}
}

func TestDirFS(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "etc/apt"), 0o700), os.WriteFile(filepath.Join(dir, "etc/apt/sources.list"), []byte("deb"), 0o600),
		os.Symlink("apt", filepath.Join(dir, "etc/link")), unix.Mkfifo(filepath.Join(dir, "etc/apt/fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f := regfile.DirFS(dir)
	if data, err := fs.ReadFile(f, "etc/link/sources.list"); err != nil || string(data) != "deb" {
		t.Errorf("read %q: %v", data, err)
	}
	if list, err := fs.ReadDir(f, "etc/apt"); err != nil || len(list) != 2 {
		t.Errorf("list %v: %v", list, err)
	}
	for name, is := range map[string]error{"etc/apt/fifo": regfile.ErrNotRegular, "etc/none": fs.ErrNotExist, "../x": fs.ErrInvalid} {
		err := promptly(t, name, func() error {
			_, err := fs.ReadFile(f, name)
			return err
		})
		if !errors.Is(err, is) {
			t.Errorf("%s: %v, expected %v", name, err, is)
		}
	}
}

// A descriptor that the shell opened is the user's own, also when it is a pipe.
func TestOpenInput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("text"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	f, err := regfile.OpenInput(fmt.Sprintf("/dev/fd/%d", r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, err := regfile.ReadAll(f, "input", 4); err != nil || string(data) != "text" {
		t.Errorf("read %q: %v", data, err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	err = promptly(t, "open a FIFO", func() error {
		_, err := regfile.OpenInput(fifo)
		return err
	})
	if !errors.Is(err, regfile.ErrNotRegular) {
		t.Errorf("open a FIFO: %v", err)
	}
}
