package fetchtest

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"example.org/snapd/internal/needs"
)

// PublicIP is a public address. This machine has it only in a test run by InPublic.
const PublicIP = "93.184.216.34"

// InPublic reports whether the test runs in a separate network in which this machine has
// PublicIP. If not, it runs the test there in a child process, and returns false when
// that has ended.
func InPublic(t *testing.T) bool {
	t.Helper()
	const env = "SNAPD_TEST_IN_PUBLIC"
	if os.Getenv(env) == t.Name() {
		for _, args := range [][]string{{"link", "set", "lo", "up"}, {"addr", "add", PublicIP + "/32", "dev", "lo"}} {
			if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
				t.Fatalf("ip %v: %v: %s", args, err, out)
			}
		}
		return true
	}
	needs.Program(t, "ip")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		needs.Missing(t, "a network namespace is needed: %v", err)
	}
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	return false
}
