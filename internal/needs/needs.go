// Package needs says what a test needs of the machine: programs, root, a file system of a
// given size. Without it the test is skipped. With CI=true in the environment a missing
// program fails the test, so that nothing is left out unnoticed; what only root may do is
// skipped there too if the tests run as an ordinary user.
package needs

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// InCI reports whether the tests run in continuous integration: CI=true is set.
func InCI() bool { return os.Getenv("CI") == "true" }

// Missing skips the test for want of something, or fails it in CI.
func Missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if InCI() {
		tb.Fatalf(format, args...)
	}
	tb.Skipf(format, args...)
}

// Refused is Missing for what an ordinary user may be refused: only root fails in CI.
func Refused(tb testing.TB, err error) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip(err)
	}
	Missing(tb, "%v", err)
}

// Program returns the path of a program that the test needs.
func Program(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(tb, "%s is needed: %v", name, err)
	}
	return path
}

// Programs is Program for several.
func Programs(tb testing.TB, names ...string) {
	tb.Helper()
	for _, name := range names {
		Program(tb, name)
	}
}

// File sees to it that there is a file that the test needs.
func File(tb testing.TB, path string) {
	tb.Helper()
	if _, err := os.Stat(path); err != nil {
		Missing(tb, "%s is needed: %v", path, err)
	}
}

// Root skips the test unless it runs as root.
func Root(tb testing.TB, why string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skipf("root is needed %s", why)
	}
}

// Tmpfs mounts an empty file system on dir until the end of the test. Size is as in
// tmpfs(5): "4m".
func Tmpfs(tb testing.TB, dir, size string) {
	tb.Helper()
	Root(tb, "to mount a file system")
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		Missing(tb, "mount a tmpfs on %s: %v", dir, err)
	}
	tb.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			tb.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// AsRoot lets a command that insists on being root, such as dpkg or dnf, run as root of a
// user namespace of its own if the tests run as an ordinary user. Its files belong to that
// user then.
func AsRoot(cmd *exec.Cmd) *exec.Cmd {
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
	}
	return cmd
}
