package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/api"
)

// terminal opens a pseudoterminal. Input written to user can be read from tty.
func terminal(t *testing.T) (user, tty *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { user.Close() })
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		tty, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return user, tty
}

// rm of a freeze asks on a terminal and removes nothing unless the answer
// is yes.
func TestRemovalAsks(t *testing.T) {
	for answer, removed := range map[string]bool{"\n": false, "n\n": false, "yes please\n": false, "y\n": true, "Yes\n": true, "\x04": false} {
		x := newTester(t)
		x.fake.answers["show"] = api.ShowResult{Frozen: &api.Frozen{Name: "4.1", Packages: 2}}
		x.fake.answers["rm"] = api.RemoveResult{Removed: "4.1"}
		user, tty := terminal(t)
		if _, err := user.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		p := &program{stdin: tty, stdout: &out, stderr: tty, getenv: func(k string) string { return x.env[k] }, machine: x.m, builder: x.build}
		x.fake.asked()
		exit := p.run(t.Context(), []string{"rm", "4.1"})
		asked := strings.Join(x.fake.asked(), "\n")
		want := api.ExitFailed
		if removed {
			want = api.ExitOK
		}
		if exit != want || strings.Contains(asked, "rm ") != removed {
			t.Errorf("answer %q: exit %d, expected %d; requests:\n%s", answer, exit, want, asked)
		}
	}
}

// Without a terminal, removing a freeze needs --yes; removing a snapshot never does.
func TestRemovalWithoutTerminal(t *testing.T) {
	x := newTester(t)
	x.stdin = "y\n"
	x.fake.answers["rm"] = api.RemoveResult{Removed: "4.1"}
	o := x.run("", "rm", "4.1")
	if o.Exit != api.ExitUsage || len(o.Requests) > 0 || !strings.Contains(o.Err, "hint: snapctl rm 4.1 --yes") {
		t.Errorf("without --yes: %+v", o)
	}
	for _, args := range [][]string{{"rm", "4.1", "--yes"}, {"rm", "debian@20261122T160000Z"}} {
		if o := x.run("", args...); o.Exit != api.ExitOK || len(o.Requests) != 1 {
			t.Errorf("%q: %+v", args, o)
		}
	}
}

// The help of verify describes the checks without --deep.
func TestVerifyHelp(t *testing.T) {
	o := newTester(t).run("", "help", "verify")
	text := strings.Join(strings.Fields(o.Out), " ")
	if o.Exit != api.ExitOK || !strings.Contains(text, "Without --deep it reads and hashes indices") || !strings.Contains(text, "Package files are not read") {
		t.Errorf("help verify: exit %d\n%s", o.Exit, o.Out)
	}
}
