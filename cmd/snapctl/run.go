package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildenv"
	"example.org/snapd/internal/image"
	"example.org/snapd/internal/lazyregexp"
	"example.org/snapd/internal/sign"
)

func runVerb() *verb {
	return &verb{
		name: "run", args: "REF COMMAND...", min: 2, max: -1,
		usage: "run a command in a build environment made from a freeze",
		about: `run makes a temporary root from the packages of a freeze or snapshot, and runs
the command there without a network. apt or dnf in it can fetch only the
packages of REF. The root is made of rpm packages if REF has no Debian packages.
The command starts in /build and has no standard input. The directory of --bind
is /src, read-only, and --output keeps the files that the command writes to
/output. Write -- before a command with options.

The usual causes of differences are fixed: SOURCE_DATE_EPOCH is the date of the
freeze; time zone, locale, umask, host name, user, paths, number of CPUs and
memory addresses are always the same. --check runs the command twice, the second
time with all of these changed, and lists outputs that differ.

The directory of --output also gets run.json, an in-toto statement of the inputs
and outputs. The exit code is that of the command: 127 if it does not exist, 126
if it cannot be executed, 128 plus the number of the signal that ended it. If
snapctl itself fails, it prints an error and ends with its usual codes, 4 if
--check finds differences. run needs user namespaces and, for users other than
root, subordinate IDs.`,
		examples: []string{
			"snapctl run 4.1 -- cat /etc/debian_version",
			"snapctl run 4.1 --package build-essential --bind src --output out -- sh -c 'cp -a /src/. . && make && cp hello /output'",
			"snapctl run 4.1 --package build-essential --bind src --check -- sh /src/build.sh",
		},
		options: []option{
			{name: "package", value: "P", many: true, usage: "install this package: NAME, NAME:ARCH or NAME=VERSION; rpm: as dnf names it"},
			{name: "bind", value: "DIR", usage: "show this directory as /src, read-only"},
			{name: "output", value: "DIR", usage: "keep what the command writes to /output in this new or empty directory"},
			{name: "check", usage: "run it twice in different surroundings and compare the outputs"},
			{name: "fake-clock", usage: "stop the command's clock at the date of the freeze, with libfaketime from the freeze"},
			{name: "jobs", value: "N", usage: "CPUs that the command may use (default: 1)"},
			{name: "key", value: "FILE", usage: "sign run.json with this private key, as run.json.asc"},
		},
		result: new(api.RunResult),
		long:   true,
		run: func(ctx context.Context, c *call) error {
			// Remove the root also if the terminal is closed.
			ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
			defer stop()
			j, err := c.newRunJob()
			if err != nil {
				return err
			}
			return j.do(ctx)
		},
	}
}

var (
	// errNotInFreeze means that REF does not have a requested package.
	errNotInFreeze = errors.New("not in it")
	// errServer means that the public address of snapd does not answer.
	errServer = errors.New("the server's packages cannot be reached")
)

// environments makes and enters build environments on this machine, or with functions
// of a test.
type environments struct {
	cpus  func() int
	check func(context.Context) error
	reach func(context.Context, string) error
	root  func(context.Context, io.Writer, image.Spec, image.Options) ([]image.Installed, error)
	run   func(context.Context, buildenv.Config) (int, error)

	rpmTools func(context.Context) (tools map[string]string, arch string, err error)
	rpmRoot  func(context.Context, buildenv.RPMRoot) ([]buildenv.Package, error)
}

var hostEnvironments = environments{
	cpus: runtime.NumCPU, check: buildenv.Check, reach: reach, root: image.WriteTar, run: buildenv.Run,
	rpmTools: buildenv.RPMTools, rpmRoot: buildenv.InstallRPM,
}

// reach requests a URL of the server, and accepts any answer except a server error.
func reach(ctx context.Context, u string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, u, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errServer, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", errServer, err)
	}
	resp.Body.Close()
	if resp.StatusCode >= 500 {
		return fmt.Errorf("%w: %s answers %s", errServer, u, resp.Status)
	}
	return nil
}

// A runJob is one call of run.
type runJob struct {
	c        *call
	command  []string
	packages []string
	bind     string
	output   string
	lock     string   // directory in output, while this run uses it
	made     []string // directories that were made for output, the outermost first
	kept     []string // files to keep in output
	jobs     int
	signer   *sign.Signer
	src      *runSource
	tools    map[string]string
	spec     image.Spec
	work     string // temporary directory
	has      []image.Installed
}

// newRunJob checks the command line, without snapd.
func (c *call) newRunJob() (*runJob, error) {
	j := &runJob{c: c, command: c.Args().Slice()[1:], packages: c.list("package"), jobs: 1}
	if err := c.checkRef(c.arg(0)); err != nil {
		return nil, err
	}
	if s := c.str("jobs"); s != "" {
		n, err := strconv.Atoi(s)
		if have := c.p.environments.cpus(); err != nil || n < 1 || n > have {
			return nil, c.usagef("--jobs %q: expected a number from 1 to %d, the CPUs of this machine", s, have)
		}
		j.jobs = n
	}
	j.spec = image.Spec{Variant: "essential", Include: j.packages, Architecture: "amd64", Epoch: c.p.now()}
	if err := j.spec.Check(); err != nil && !rpmNames(j.packages) {
		return nil, c.usagef("%v", err)
	}
	var err error
	if b := c.str("bind"); b != "" {
		if st, err := os.Stat(b); err != nil {
			return nil, c.usagef("--bind %s: expected a directory: %v", b, errors.Unwrap(err))
		} else if !st.IsDir() {
			return nil, c.usagef("--bind %s: expected a directory, found a file", b)
		}
		if j.bind, err = filepath.EvalSymlinks(b); err != nil {
			return nil, err
		}
		if j.bind, err = absolute(j.bind); err != nil {
			return nil, err
		}
	}
	if o := c.str("output"); o != "" {
		entries, err := os.ReadDir(o)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, c.usagef("--output %s: expected a new or empty directory: %v", o, errors.Unwrap(err))
		case len(entries) > 0:
			return nil, j.notEmpty(o, entries[0].Name())
		}
		if j.output, err = absolute(o); err != nil {
			return nil, err
		}
		if err := j.checkApart(o); err != nil {
			return nil, err
		}
	}
	if k := c.str("key"); k != "" {
		if j.output == "" {
			return nil, c.usagef("--key needs --output: it signs the record there")
		}
		if j.signer, err = sign.LoadSigner(k); err != nil {
			return nil, err
		}
	}
	return j, nil
}

var rpmNameRE = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9.+~^_:-]*$`)

// rpmNames reports whether all words are valid names of rpm packages.
func rpmNames(list []string) bool {
	return !slices.ContainsFunc(list, func(p string) bool { return !rpmNameRE().MatchString(p) })
}

// do makes the environment, runs the command and reports the result.
func (j *runJob) do(ctx context.Context) (err error) {
	c := j.c
	if err := c.p.environments.check(ctx); err != nil {
		return err
	}
	if j.src, err = c.runSource(ctx, c.arg(0)); err != nil {
		return err
	}
	if err := j.findTools(ctx); err != nil {
		return err
	}
	if err := j.choosePackages(); err != nil {
		return err
	}
	if err := c.p.environments.reach(ctx, j.src.first); err != nil {
		return err
	}
	if j.output != "" {
		defer func() { err = errors.Join(err, j.release(err != nil && exitOf(err) == 0)) }()
		if err := j.take(); err != nil {
			return err
		}
	}
	if j.work, err = os.MkdirTemp("", "snapctl-run-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, buildenv.Remove(j.work)) }()
	outputs := j.lock // on the file system of --output
	if j.output == "" {
		outputs = filepath.Join(j.work, "outputs")
		if err := os.Mkdir(outputs, 0o700); err != nil {
			return err
		}
	}
	if err := j.makeRoot(ctx); err != nil {
		return err
	}
	return j.runs(ctx, filepath.Join(outputs, "first"), filepath.Join(outputs, "second"))
}

// exitOf returns the code of an exitError, or 0.
func exitOf(err error) int {
	var e exitError
	if errors.As(err, &e) {
		return int(e)
	}
	return 0
}

// findTools gets the versions of the programs that make the root, and the architecture
// of this machine.
func (j *runJob) findTools(ctx context.Context) (err error) {
	if j.src.rpm {
		j.tools, j.spec.Architecture, err = j.c.p.environments.rpmTools(ctx)
		return err
	}
	if err := j.spec.Check(); err != nil {
		return j.c.usagef("%v", err)
	}
	if j.spec.Architecture, err = j.c.p.builder.architecture(ctx); err != nil {
		return err
	}
	j.tools, err = j.c.p.builder.tools(ctx)
	return err
}

// makeRPMRoot writes a root of rpm packages to a file.
func (j *runJob) makeRPMRoot(ctx context.Context) error {
	c := j.c
	work := filepath.Join(j.work, "dnf")
	keys := filepath.Join(work, "keys")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return err
	}
	for name, text := range j.src.keys {
		if err := os.WriteFile(filepath.Join(keys, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	here := (&url.URL{Scheme: "file", Path: keys}).String()
	c.ui.progress(api.Progress{Task: j.src.name, Phase: "install"})
	list, err := c.p.environments.rpmRoot(ctx, buildenv.RPMRoot{
		File: j.rootFile(), WorkDir: work, Repo: strings.ReplaceAll(j.src.sources, "file://"+buildenv.KeysDir, here),
		Packages: j.spec.Include, Epoch: j.src.epoch.Unix(),
	})
	c.ui.endProgress()
	if err = errors.Join(err, buildenv.Remove(work)); err != nil {
		return err
	}
	for _, p := range list {
		j.has = append(j.has, image.Installed(p))
	}
	return nil
}

// makeRoot writes the root to a file.
func (j *runJob) makeRoot(ctx context.Context) error {
	if j.src.rpm {
		return j.makeRPMRoot(ctx)
	}
	c, name := j.c, j.src.name
	temp := filepath.Join(j.work, "mmdebstrap")
	if err := os.Mkdir(temp, 0o700); err != nil {
		return err
	}
	// mmdebstrap works in this directory as other users. Only this user may access
	// everything else: outside of the root, its setuid programs would run as this user.
	for _, d := range []string{j.work, temp} {
		if err := os.Chmod(d, 0o755); err != nil {
			return err
		}
	}
	f, err := os.Create(j.rootFile())
	if err != nil {
		return err
	}
	defer f.Close()
	j.spec.Epoch, j.spec.Sources = j.src.epoch, j.src.sources
	j.has, err = c.p.environments.root(ctx, f, j.spec, image.Options{TempDir: temp, Progress: c.ui.packed(name), Log: &buildLog{tell: func(phase string) {
		c.ui.progress(api.Progress{Task: name, Phase: phase})
	}}})
	c.ui.endProgress()
	if err != nil {
		return err
	}
	return f.Close()
}

func (j *runJob) rootFile() string { return filepath.Join(j.work, "root.tar") }

// runs runs the command once, or twice with --check, and shows the result. The outputs
// of each run are in a new directory.
func (j *runJob) runs(ctx context.Context, dir, second string) error {
	c := j.c
	first := buildenv.NewSettings(j.src.epoch, j.jobs, c.on("fake-clock"))
	out := &api.RunResult{Ref: c.arg(0), Name: j.src.name, Command: j.command, Outputs: []api.RunOutput{}}
	rec := &buildenv.Record{
		Ref: out.Ref, Name: out.Name, Digests: j.src.inputs, Command: j.command, Packages: j.packages,
		Jobs: j.jobs, Settings: first, Tools: map[string]string{"snapctl": version()}, Installed: j.installedInputs(),
	}
	for k, v := range j.tools {
		rec.Tools[k] = v
	}
	if j.bind != "" && j.output != "" {
		list, err := buildenv.Outputs(j.bind, j.bind)
		if err != nil {
			return err
		}
		_, rec.Bind = buildenv.Listing(list)
	}
	var err error
	if out.Status, rec.Outputs, rec.Fetched, err = j.once(ctx, first, dir, "first"); err != nil {
		return err
	}
	rec.Exit, out.Exit = out.Status, out.Status
	if c.on("check") && out.Status == 0 {
		if out.Check, err = j.again(ctx, first, rec.Outputs, second); err != nil {
			return err
		}
		if rec.Check, rec.Reproducible = true, out.Check.Equal; !out.Check.Equal {
			out.Exit = api.ExitVerify
		}
	}
	for _, o := range rec.Outputs {
		out.Outputs = append(out.Outputs, api.RunOutput(o))
	}
	if j.output != "" {
		if out.Record, err = j.keep(rec, out, dir, second); err != nil {
			return err
		}
	}
	show(c.ui, out, func(r *api.RunResult) { c.ui.ran(r, j.output != "") })
	return j.end(out)
}

// end returns the error with which snapctl ends, which explains any exit code except 0.
func (j *runJob) end(out *api.RunResult) error {
	c := j.c
	if out.Exit == 0 {
		return nil
	}
	if err := c.ui.flush(); err != nil {
		return err
	}
	msg, hint := fmt.Sprintf("%s ended with exit status %d", j.command[0], out.Status), ""
	if out.Check != nil {
		msg = fmt.Sprintf("run %s: the outputs of two runs differ", out.Ref)
		if out.Check.Status != out.Status {
			msg = fmt.Sprintf("run %s: the first run ended with exit status %d, the second with %d", out.Ref, out.Status, out.Check.Status)
		} else if j.output == "" {
			hint = "keep both with --output DIR to inspect the differences"
		}
	}
	c.ui.failure(msg, hint)
	return exitError(out.Exit)
}

// once runs the command in a new root, with /output in dir.
func (j *runJob) once(ctx context.Context, s buildenv.Settings, dir, name string) (int, []buildenv.Output, map[string]string, error) {
	c := j.c
	work := filepath.Join(j.work, name)
	if err := os.Mkdir(work, 0o700); err != nil {
		return 0, nil, nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, nil, nil, err
	}
	// In the environment, all users can read it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, nil, nil, err
	}
	forward := buildenv.NewForwarder(j.src.server, []string{j.src.below})
	sources, files := j.src.inside, map[string]string(nil)
	if j.src.rpm {
		sources, files = "", buildenv.RPMFiles(j.src.inside, j.src.keys)
	}
	stdout := c.p.stdout
	if c.ui.json {
		stdout = c.p.stderr
	}
	status, err := c.p.environments.run(ctx, buildenv.Config{
		Root: j.rootFile(), WorkDir: work, Output: dir, Bind: j.bind, Sources: sources, Files: files, Handler: forward,
		Command: j.command, Settings: s, Stdout: stdout, Stderr: c.p.stderr,
		Progress: func(phase string) {
			c.ui.progress(api.Progress{Task: j.src.name, Phase: phase})
			if phase == "run" {
				c.ui.endProgress()
			}
		},
	})
	if err = errors.Join(err, buildenv.Remove(work)); err != nil {
		return 0, nil, nil, err
	}
	list, err := buildenv.Outputs(dir, buildenv.OutputDir)
	if err != nil {
		return 0, nil, nil, err
	}
	for _, o := range list {
		if o.Path == buildenv.RecordName || o.Path == buildenv.RecordName+".asc" || o.Path == buildenv.SecondName {
			return 0, nil, nil, fmt.Errorf("%s/%s: %w: the name is reserved for the record", buildenv.OutputDir, o.Path, buildenv.ErrOutput)
		}
	}
	return status, list, forward.Fetched(), nil
}

// again runs the command in a varied environment and compares the outputs.
func (j *runJob) again(ctx context.Context, first buildenv.Settings, outputs []buildenv.Output, dir string) (*api.RunCheck, error) {
	m := buildenv.Machine{CPUs: j.c.p.environments.cpus(), Forward: buildenv.DirectoryOrder()}
	for _, p := range j.has {
		m.Locales = m.Locales || p.Name == "locales-all"
	}
	second, varied, same := first.Vary(m)
	r := &api.RunCheck{Varied: []api.RunVariation{}, Same: append([]string{}, same...), Differences: []api.RunDifference{}}
	for _, v := range varied {
		r.Varied = append(r.Varied, api.RunVariation(v))
	}
	status, list, _, err := j.once(ctx, second, dir, "second")
	if err != nil {
		return nil, errors.Join(err, buildenv.Remove(dir))
	}
	r.Status = status
	for _, d := range buildenv.Compare(outputs, list) {
		r.Differences = append(r.Differences, api.RunDifference(d))
	}
	r.Equal = status == 0 && len(r.Differences) == 0
	return r, nil
}
