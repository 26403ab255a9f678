package buildenv

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// parentFD is the socket that leads to the parent.
const parentFD = 3

// Helper does the work of an environment's first process, and does not return, if this
// program was executed as that process. Programs that call Run must call it first.
func Helper() {
	if len(os.Args) != 2 || os.Args[0] != started {
		return
	}
	if os.Args[1] == "wait" {
		// The process got its capabilities before it had IDs, and lost them when it
		// was executed. As user 0 it gets them again when it is executed once more.
		n, err := syscall.Read(parentFD, make([]byte, 1))
		for err == syscall.EINTR {
			n, err = syscall.Read(parentFD, make([]byte, 1))
		}
		if n != 1 || err != nil {
			os.Exit(1)
		}
		err = syscall.Exec("/proc/self/exe", []string{started, "run"}, []string{"PATH=" + searchPath})
		fmt.Fprintln(os.Stderr, "execute /proc/self/exe:", err)
		os.Exit(1)
	}
	syscall.CloseOnExec(parentFD)
	f := os.NewFile(parentFD, "parent")
	conn, err := net.FileConn(f)
	if err != nil {
		os.Exit(1)
	}
	f.Close()
	parent := conn.(*net.UnixConn)
	var o order
	in := bufio.NewReader(parent)
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &o)
	}
	if err != nil {
		os.Exit(1)
	}
	go func() {
		io.Copy(io.Discard, in) // until the parent closes the socket or ends
		syscall.Kill(-1, syscall.SIGTERM)
		time.Sleep(grace)
		os.Exit(1) // with the first process, all others end
	}()
	r := report{}
	switch o.Task {
	case "probe":
		err = probe()
	case "install":
		err = o.Install.install()
	case "remove":
		for _, p := range o.Remove {
			err = errors.Join(err, os.RemoveAll(p))
		}
	default:
		r.Exit, err = runOrder(&o, parent)
	}
	if err != nil {
		r.Error = err.Error()
	}
	text, _ := json.Marshal(r)
	parent.Write(append(text, '\n'))
	os.Exit(0)
}

// probe tries operations that only some machines and containers allow.
func probe() error {
	if err := private(); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	return loopback()
}

// private makes all mounts of this process private.
func private() error { return mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }

// runOrder prepares the environment, runs the command and returns its exit code.
func runOrder(o *order, parent *net.UnixConn) (int, error) {
	if err := syscall.Setgroups([]int{0}); err != nil {
		return 0, fmt.Errorf("set groups: %w", err)
	}
	syscall.Umask(0)
	if err := private(); err != nil {
		return 0, err
	}
	root := filepath.Join(o.WorkDir, "root")
	if err := unpack(o.Root, root); err != nil {
		return 0, err
	}
	faketime, err := furnish(o, root)
	if err != nil {
		return 0, err
	}
	if err := mountAll(o, root); err != nil {
		return 0, err
	}
	if err := enter(root); err != nil {
		return 0, err
	}
	if err := unix.Sethostname([]byte(o.Settings.HostName)); err != nil {
		return 0, fmt.Errorf("set host name: %w", err)
	}
	if err := unix.Setdomainname([]byte("(none)")); err != nil {
		return 0, fmt.Errorf("set domain name: %w", err)
	}
	if err := listen(parent); err != nil {
		return 0, err
	}
	exit, err := execute(o.Command, o.Settings, o.Settings.environ(faketime))
	if err != nil {
		return exit, err
	}
	return exit, giveOutputs(OutputDir)
}

// unpack unpacks a tar stream to the directory root.
func unpack(file, root string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("tar", "--extract", "--file="+file, "--directory="+root, "--numeric-owner", "--same-permissions",
		"--xattrs", "--xattrs-include=*", "--exclude=./dev/*")
	cmd.Env = []string{"PATH=" + searchPath, "LC_ALL=C.UTF-8", "TZ=UTC"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("unpack the root: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// furnish makes the directories and files of the environment in its root, and returns
// the path of libfaketime, if it is needed.
func furnish(o *order, dir string) (faketime string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	s := &o.Settings
	for _, d := range s.dirs() {
		if err := root.MkdirAll(d, 0o755); err != nil {
			return "", fmt.Errorf("make /%s in the root: %w", d, err)
		}
	}
	if s.Dir != BuildDir {
		if err := root.Symlink(s.Dir, BuildDir[1:]); err != nil {
			return "", fmt.Errorf("make %s in the root: %w", BuildDir, err)
		}
	}
	files := s.files(o.Sources)
	maps.Copy(files, o.Files)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(name, "etc/apt/") {
			if _, err := root.Stat("etc/apt"); errors.Is(err, fs.ErrNotExist) {
				continue // no apt
			}
		}
		root.Remove(name) // may be a link
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return "", err
		}
		if err := root.WriteFile(name, []byte(files[name]), 0o644); err != nil {
			return "", fmt.Errorf("write /%s in the root: %w", name, err)
		}
	}
	if text, err := root.ReadFile("etc/passwd"); err == nil {
		if err := root.WriteFile("etc/passwd", []byte(s.passwd(string(text))), 0o644); err != nil {
			return "", fmt.Errorf("write /etc/passwd in the root: %w", err)
		}
	}
	if s.Clock != 0 {
		found, _ := filepath.Glob(filepath.Join(dir, "usr/lib/*/faketime/libfaketime.so.1"))
		others, _ := filepath.Glob(filepath.Join(dir, "usr/lib*/faketime/libfaketime.so.1"))
		if found = append(found, others...); len(found) == 0 {
			return "", errors.New("the root has no /usr/lib/*/faketime/libfaketime.so.1")
		}
		faketime = strings.TrimPrefix(found[0], dir)
	}
	return faketime, nil
}

// mount is unix.Mount with an error that says what was to be mounted.
func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", orNone(source), target, err)
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// devices are the machine's device files that the environment has.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// deviceLinks are the symbolic links in /dev.
var deviceLinks = map[string]string{
	"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
}

// ofMachine are the files in /proc that concern the whole machine. User 0 of the
// machine may write them without a capability.
var ofMachine = []string{"sys", "sysrq-trigger", "irq", "bus", "fs"}

// mountProc mounts /proc, with the machine's settings read-only. The command cannot
// mount another /proc in new namespaces, because the kernel forbids it while mounts
// cover parts of this one.
func mountProc(proc string) error {
	if err := mount("proc", proc, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	for _, name := range ofMachine {
		p := proc + "/" + name
		if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) {
			continue // not in this kernel
		}
		if err := mount(p, p, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := readOnly(p, "/proc/"+name); err != nil {
			return err
		}
	}
	return nil
}

// readOnly makes the mounts at and below a path read-only.
func readOnly(p, shown string) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, p, unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make %s read-only: %w", shown, err)
	}
	return nil
}

// mountDev mounts a /dev with a few devices.
func mountDev(dev string) error {
	if err := mount("dev", dev, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=755"); err != nil {
		return err
	}
	for _, name := range devices {
		if err := os.WriteFile(dev+"/"+name, nil, 0o666); err != nil {
			return err
		}
		if err := mount("/dev/"+name, dev+"/"+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(deviceLinks)) {
		if err := os.Symlink(deviceLinks[name], dev+"/"+name); err != nil {
			return err
		}
	}
	for _, name := range []string{"pts", "shm"} {
		if err := os.Mkdir(dev+"/"+name, 0o755); err != nil {
			return err
		}
	}
	if err := mount("devpts", dev+"/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"); err != nil {
		return err
	}
	return mount("shm", dev+"/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
}

// mountAll mounts everything in the root.
func mountAll(o *order, root string) error {
	if err := mount(root, root, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := mountProc(root + "/proc"); err != nil {
		return err
	}
	if err := mountDev(root + "/dev"); err != nil {
		return err
	}
	if err := mount(o.Output, root+OutputDir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if o.Bind != "" {
		if err := mount(o.Bind, root+SourceDir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	if o.Settings.Reverse {
		for i, d := range []string{SourceDir, o.Settings.Dir} {
			if err := reverse(root+d, filepath.Join(o.WorkDir, fmt.Sprint("forward", i))); err != nil {
				return err
			}
		}
	}
	if o.Bind == "" {
		return nil
	}
	return readOnly(root+SourceDir, SourceDir)
}

// reverse makes a directory list its entries in reverse order; below is a new directory
// for the original. disorderfs reads the original by its path, which does not exist in
// the environment's root. It therefore runs in a mount namespace where the path
// remains, and its mount propagates from there.
func reverse(dir, below string) error {
	if err := os.Mkdir(below, 0o755); err != nil {
		return err
	}
	if err := mount(dir, below, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	cmd := exec.Command("unshare", "--mount", "--propagation=unchanged", "disorderfs", "--quiet",
		"--shuffle-dirents=no", "--sort-dirents=yes", "--reverse-dirents=yes", "-o", "allow_other,nonempty", below, dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("disorderfs %s: %w: %s", dir, err, strings.TrimSpace(string(out)))
	}
	return private()
}

// enter makes root the root directory, and unmounts all file systems of the machine.
func enter(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root directory: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the machine's files: %w", err)
	}
	return os.Chdir("/")
}

// loopback starts the network interface lo, the only one.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start lo: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("start lo: %w", err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("start lo: %w", err)
	}
	return nil
}

// listen opens the environment's HTTP listener and passes it to the parent.
func listen(parent *net.UnixConn) error {
	if err := loopback(); err != nil {
		return err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:"+Port)
	if err != nil {
		return err
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, err := parent.WriteMsgUnix([]byte{'L'}, syscall.UnixRights(int(f.Fd())), nil); err != nil {
		return fmt.Errorf("pass the listener on: %w", err)
	}
	return nil
}

// kept are the capabilities that package managers and builds need. CAP_SYS_ADMIN is not
// among them, so that the command cannot make /src writable.
var kept = []uintptr{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID,
	unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT, unix.CAP_MKNOD, unix.CAP_AUDIT_WRITE, unix.CAP_SETFCAP,
}

// addrNoRandomize is the personality whose memory addresses are not random.
const addrNoRandomize = 0x0040000

// execute runs the command and returns its exit code when it and all other processes
// have ended.
func execute(command []string, s Settings, env []string) (int, error) {
	// These settings apply to this thread and to the processes that it starts.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if !s.Random {
		if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, addrNoRandomize, 0, 0); e != 0 {
			return 0, fmt.Errorf("set the personality: %w", e)
		}
	}
	if err := limitCPUs(s.CPUs); err != nil {
		return 0, err
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if keeps(c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return 0, fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	os.Setenv("PATH", s.Env["PATH"])
	path, err := exec.LookPath(command[0])
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(os.Stderr, "%s: not found in the environment\n", command[0])
			return NotFound, nil
		}
		fmt.Fprintf(os.Stderr, "%s: it cannot be executed\n", command[0])
		return NotExecutable, nil
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return 0, err
	}
	defer null.Close()
	syscall.Umask(s.Umask)
	pid, err := syscall.ForkExec(path, command, &syscall.ProcAttr{
		Dir: s.Dir, Env: env, Files: []uintptr{null.Fd(), 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	syscall.Umask(0)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", command[0], err)
		return NotExecutable, nil
	}
	exit := reap(pid)
	syscall.Kill(-1, syscall.SIGKILL)
	reap(-1)
	return exit, nil
}

func keeps(c uintptr) bool {
	for _, k := range kept {
		if k == c {
			return true
		}
	}
	return false
}

// limitCPUs lets this thread use only the first n of its CPUs.
func limitCPUs(n int) error {
	var have, use unix.CPUSet
	if err := unix.SchedGetaffinity(0, &have); err != nil {
		return fmt.Errorf("find the CPUs: %w", err)
	}
	for i := 0; n > 0 && i < len(have)*64; i++ {
		if have.IsSet(i) {
			use.Set(i)
			n--
		}
	}
	if err := unix.SchedSetaffinity(0, &use); err != nil {
		return fmt.Errorf("limit the CPUs: %w", err)
	}
	return nil
}

// reap waits for processes until pid has ended, and returns its exit code; for -1
// until all have ended.
func reap(pid int) int {
	for {
		var st syscall.WaitStatus
		got, err := syscall.Wait4(-1, &st, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0
		case got == pid && st.Signaled():
			return 128 + int(st.Signal())
		case got == pid:
			return st.ExitStatus()
		}
	}
}

// giveOutputs makes user 0, who is this program's user, the owner of all files of a
// directory, and lets that user read them. It removes setuid bits and capabilities, so
// that no program outside runs with that user's rights.
func giveOutputs(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 0 || sys.Gid != 0 {
			if err := os.Lchown(p, 0, 0); err != nil {
				return err
			}
		}
		want := st.Mode().Perm()
		switch {
		case d.IsDir():
			want |= 0o700
		case d.Type().IsRegular():
			want |= 0o400
			err := unix.Lremovexattr(p, "security.capability")
			if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
				return fmt.Errorf("remove the capabilities of %s: %w", p, err)
			}
		default:
			return nil
		}
		// The permissions of package fs exclude the setuid, setgid and sticky bits.
		if st.Mode()&^fs.ModeType == want {
			return nil
		}
		return os.Chmod(p, want)
	})
}
