package iuk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A target with files that are not regular is refused at once, and is not changed.
func TestApplyHostileTarget(t *testing.T) {
	for _, name := range []string{"live/Tails.module", "live/filesystem.squashfs", "live/vmlinuz", "EFI/BOOT/bootx64.efi", journalFile} {
		for kind, put := range map[string]func(string) error{
			"FIFO":   func(p string) error { return unix.Mkfifo(p, 0o600) },
			"device": func(p string) error { return os.Symlink("/dev/zero", p) },
			"giant": func(p string) error {
				if err := os.WriteFile(p, nil, 0o600); err != nil {
					return err
				}
				return os.Truncate(p, 200<<30)
			},
		} {
			if kind == "giant" && name != "live/Tails.module" && name != journalFile {
				continue // other files may have any size
			}
			t.Run(name+" "+kind, func(t *testing.T) {
				dir := scratch(t)
				if err := os.CopyFS(dir, exampleTarget()); err != nil {
					t.Fatal(err)
				}
				p := filepath.Join(dir, filepath.FromSlash(name))
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				os.Remove(p)
				if err := put(p); err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() {
					_, err := applyFS(t.Context(), exampleKit(), dir, ApplyOptions{})
					done <- err
				}()
				select {
				case err := <-done:
					if err == nil || !strings.Contains(err.Error(), filepath.Base(name)) {
						t.Errorf("%v, expected an error that names %s", err, name)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("no end after 20 s")
				}
				if data, err := os.ReadFile(filepath.Join(dir, "EFI/BOOT/grub.cfg")); err != nil || string(data) != "menu 6.8" {
					t.Errorf("the target was changed: %q, %v", data, err)
				}
			})
		}
	}
}
