// Package buildenv runs a command in a temporary root file system without a network,
// and fixes all settings that make builds differ.
//
// The environment consists of user, mount, PID, network, UTS and IPC namespaces, which
// an ordinary user can make. This program executes itself as their first process (see
// Helper), which unpacks the root, makes the mounts, changes to the root and waits for
// the command. All processes and mounts end with that process, and it ends when its
// parent does.
//
// The only way out is an HTTP listener on 127.0.0.1 in the environment. The first
// process opens it there and passes the socket to its parent, which answers the
// requests: see Forward.
package buildenv

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

var (
	// ErrNamespaces means that this machine or user cannot make the namespaces.
	ErrNamespaces = errors.New("namespaces are not available")
	// ErrIDs means that the user has no subordinate IDs, which root file systems
	// need for the owners of their files.
	ErrIDs = errors.New("no subordinate IDs")
	// ErrMapTool means that the programs that set the IDs of a namespace are missing.
	ErrMapTool = errors.New("newuidmap and newgidmap are needed")
	// ErrSetup means that the environment could not be prepared.
	ErrSetup = errors.New("environment cannot be prepared")
	// ErrOutput means that a directory has an entry that cannot be kept or recorded.
	ErrOutput = errors.New("it cannot be kept")
)

// Places in the environment.
const (
	BuildDir  = "/build"
	SourceDir = "/src"
	OutputDir = "/output"
)

// Port is the port of the environment's HTTP listener, on 127.0.0.1.
const Port = "8080"

// Config describes one run.
type Config struct {
	Root     string            // file with the root, a tar stream
	WorkDir  string            // empty directory for the unpacked root
	Output   string            // directory that is /output
	Bind     string            // directory that is /src, read-only; "": none
	Sources  string            // apt's sources, in deb822
	Files    map[string]string // other files of the root, by path without a leading slash
	Handler  http.Handler      // answers the environment's HTTP listener
	Command  []string
	Settings Settings
	Stdout   io.Writer
	Stderr   io.Writer
	Progress func(phase string)
}

// Exit codes of a command that could not be run, as in shells.
const (
	NotExecutable = 126
	NotFound      = 127
)

// order is the helper's task and its parameters.
type order struct {
	Task     string // run, probe, install or remove
	Root     string
	WorkDir  string
	Output   string
	Bind     string
	Sources  string
	Files    map[string]string
	Command  []string
	Settings Settings
	Install  *RPMRoot
	Remove   []string
}

// report is the helper's answer.
type report struct {
	Exit  int
	Error string
}

// Check returns an error if this machine or user cannot make the namespaces.
func Check(ctx context.Context) error {
	_, err := start(ctx, order{Task: "probe"}, nil, nil, nil)
	return err
}

// Run runs a command and returns its exit status, or 128 plus the signal's number if a
// signal ended it. When ctx is done, Run ends all processes of the environment.
func Run(ctx context.Context, c Config) (int, error) {
	o := order{
		Task: "run", Root: c.Root, WorkDir: c.WorkDir, Output: c.Output, Bind: c.Bind, Sources: c.Sources, Files: c.Files,
		Command: c.Command, Settings: c.Settings,
	}
	if c.Progress != nil {
		c.Progress("unpack")
	}
	var srv *http.Server
	r, err := start(ctx, o, c.Stdout, c.Stderr, func(l net.Listener) {
		srv = &http.Server{Handler: c.Handler, ReadHeaderTimeout: time.Minute}
		go srv.Serve(l)
		if c.Progress != nil {
			c.Progress("run")
		}
	})
	if srv != nil {
		// A handler notes a file that was read to its end only when the handler ends.
		wait, cancel := context.WithTimeout(context.Background(), answerTime)
		defer cancel()
		if srv.Shutdown(wait) != nil {
			srv.Close()
		}
	}
	return r.Exit, err
}

// answerTime is how long handlers may take to end after the environment has ended,
// which then reads nothing more.
const answerTime = 10 * time.Second

// Remove removes directories in which an environment may have left files of its users,
// which this user cannot remove.
func Remove(paths ...string) error {
	var left []string
	var errs []error
	for _, p := range paths {
		if err := os.RemoveAll(p); err != nil {
			left = append(left, p)
			errs = append(errs, err)
		}
	}
	if len(left) == 0 {
		return nil
	}
	if os.Geteuid() == 0 {
		return errors.Join(errs...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	_, err := start(ctx, order{Task: "remove", Remove: left}, nil, nil, nil)
	return err
}

// grace is how long the processes of an environment have to end themselves.
const grace = 2 * time.Second

// started is the name under which this program executes itself as the first
// process of an environment.
const started = "snapctl-environment"

// start executes the helper in new namespaces and waits for it. listening is
// called with the listener in the environment.
func start(ctx context.Context, o order, stdout, stderr io.Writer, listening func(net.Listener)) (report, error) {
	ids, err := findIDs()
	if err != nil {
		return report{}, err
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return report{}, fmt.Errorf("%w: %w", ErrSetup, err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "helper")
	ours, err := fileConn(pair[0])
	if err != nil {
		theirs.Close()
		return report{}, fmt.Errorf("%w: %w", ErrSetup, err)
	}
	defer ours.Close()

	flags := uintptr(syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID)
	switch o.Task {
	case "run", "probe":
		flags |= syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC
	case "install":
		flags |= syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC // dnf fetches packages
	}
	cmd := exec.Command("/proc/self/exe", "wait")
	cmd.Args[0] = started
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs}
	// Never pass the terminal itself: a command could insert input into it.
	cmd.Stdout, cmd.Stderr = plain(stdout), plain(stderr)
	// In a separate process group, it does not get a Ctrl-C at the terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Setpgid: true}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return report{}, fmt.Errorf("%w: %w%s", ErrNamespaces, err, obstacles())
	}
	// When the parent's end of the socket is closed, the helper ends everything. Give
	// it some time for that.
	ended := make(chan struct{})
	defer close(ended)
	defer context.AfterFunc(ctx, func() {
		ours.CloseWrite()
		select {
		case <-ended:
		case <-time.After(grace + 10*time.Second):
			cmd.Process.Kill()
		}
	})()

	r, err := talk(ctx, cmd.Process.Pid, ids, o, ours, listening)
	if err != nil {
		ours.Close()
		cmd.Process.Kill()
	}
	werr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case err != nil:
		return r, err
	case werr != nil:
		return r, fmt.Errorf("%w: its first process: %w", ErrSetup, werr)
	}
	return r, nil
}

// plain hides that a writer is a file, so that the child writes to it through a pipe.
func plain(w io.Writer) io.Writer {
	if w == nil {
		return nil
	}
	return struct{ io.Writer }{w}
}

func fileConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "helper")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// talk sends the helper its IDs and its order, and returns its report.
func talk(ctx context.Context, pid int, ids idMap, o order, conn *net.UnixConn, listening func(net.Listener)) (report, error) {
	if err := ids.apply(ctx, pid); err != nil {
		return report{}, err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return report{}, err
	}
	// The first byte says that the IDs are set.
	if _, err := conn.Write(append([]byte{'\n'}, append(text, '\n')...)); err != nil {
		return report{}, fmt.Errorf("%w: %w", ErrSetup, err)
	}
	in := bufio.NewReader(conn)
	if o.Task == "run" {
		l, err := receiveListener(conn)
		if err != nil {
			// The helper has reported the reason, or has ended.
			if l := new(helperError); errors.As(err, &l) {
				return report{}, fmt.Errorf("%w: %s", ErrSetup, l.text)
			}
			return report{}, fmt.Errorf("%w: its first process ended early: %w", ErrSetup, err)
		}
		listening(l)
	}
	line, err := in.ReadBytes('\n')
	var r report
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	switch {
	case err != nil:
		return r, fmt.Errorf("%w: its first process ended early: %w", ErrSetup, err)
	case r.Error != "" && o.Task == "probe":
		return r, fmt.Errorf("%w: %s%s", ErrNamespaces, r.Error, obstacles())
	case r.Error != "":
		return r, fmt.Errorf("%w: %s", ErrSetup, r.Error)
	}
	return r, nil
}

// helperError is a failure that the helper reported.
type helperError struct{ text string }

func (e *helperError) Error() string { return e.text }

// receiveListener receives the listener's socket, or a report with an error.
func receiveListener(conn *net.UnixConn) (net.Listener, error) {
	buf, oob := make([]byte, 64<<10), make([]byte, 64)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	if oobn == 0 {
		var r report
		if err := json.Unmarshal(buf[:n], &r); err != nil {
			return nil, err
		}
		return nil, &helperError{r.Error}
	}
	msgs, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	fds, err := syscall.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fds[0])
	f := os.NewFile(uintptr(fds[0]), "listener")
	defer f.Close()
	return net.FileListener(f)
}
