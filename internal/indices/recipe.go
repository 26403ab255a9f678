package indices

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/excerpt"
)

// ErrRecipe means that no program on this machine makes the bytes of a compressed index:
// it is missing, or its version makes other bytes.
var ErrRecipe = errclass.New(errclass.NotFound, "the compressed index cannot be made again")

// recipe makes a compressed variant from the plain one.
type recipe struct {
	suffix string
	argv   []string
	rate   int64    // plain bytes per second, on a slow machine
	called string   // name in the metadata; "": argv
	tell   []string // arguments that print the version; nil: --version
}

// recipes are tried in this order. The first ones of each suffix are those that Debian
// uses. The threaded encoder of xz, which -T2 selects whatever the number of cores,
// writes other block headers than the one that -T1 selects.
var recipes = []recipe{
	{suffix: ".xz", argv: []string{"xz", "-6e", "-T2"}, rate: 700 << 10},
	{suffix: ".xz", argv: []string{"xz", "-6", "-T1"}, rate: 1 << 20},
	{suffix: ".xz", argv: []string{"xz", "-6e", "-T1"}, rate: 700 << 10},
	{suffix: ".xz", argv: []string{"xz", "-6", "-T2"}, rate: 1 << 20},
	{suffix: ".xz", argv: []string{"xz", "-9e", "-T1"}, rate: 600 << 10},
	{suffix: ".xz", argv: []string{"xz", "-9", "-T1"}, rate: 800 << 10},
	{suffix: ".gz", argv: []string{"gzip", "-9n", "--rsyncable"}, rate: 10 << 20},
	{suffix: ".gz", argv: []string{"gzip", "-9n"}, rate: 10 << 20},
	{suffix: ".gz", argv: []string{"gzip", "-6n"}, rate: 20 << 20},
	{suffix: ".gz", called: "zlib 6", argv: []string{"perl", "-MCompress::Raw::Zlib", "-e", zlibScript, "--"}, rate: 10 << 20,
		tell: []string{"-MCompress::Raw::Zlib", "-e", "print 'zlib ', Compress::Raw::Zlib::zlib_version()"}},
	{suffix: ".bz2", argv: []string{"bzip2", "-9"}, rate: 4 << 20},
}

// zlibScript compresses with zlib, which writes other bytes than gzip does. Debian's
// AppStream data and rpm-md are made with zlib. Perl is on most systems.
const zlibScript = `my ($d) = Compress::Raw::Zlib::Deflate->new(-Level => 6, -WindowBits => WANT_GZIP, -MemLevel => 8, -AppendOutput => 0);
binmode STDIN; binmode STDOUT;
my ($in, $out);
while (my $n = read(STDIN, $in, 65536) // die $!) { $d->deflate($in, $out) == Z_OK or die; print $out }
$d->flush($out) == Z_OK or die; print $out;
close STDOUT or die $!`

// name returns the name of the recipe in the metadata.
func (r *recipe) name() string {
	if r.called != "" {
		return r.called
	}
	return strings.Join(r.argv, " ")
}

// takes returns an estimate of the time for making a variant.
func (r *recipe) takes(plain int64) time.Duration {
	return time.Duration(float64(plain) / float64(r.rate) * float64(time.Second))
}

// recipesFor returns the recipes for a compressed file.
func recipesFor(file string) (out []*recipe) {
	for i := range recipes {
		if recipes[i].suffix == path.Ext(file) {
			out = append(out, &recipes[i])
		}
	}
	return out
}

// recipeNamed finds a recipe by its name. ErrRecipe.
func recipeNamed(name string) (*recipe, error) {
	for i := range recipes {
		if recipes[i].name() == name {
			return &recipes[i], nil
		}
	}
	return nil, fmt.Errorf("%w: recipe %q is not known", ErrRecipe, excerpt.Of(name))
}

// priority is the niceness of the programs, so that they do not delay clients.
const priority = 10

// run starts the program and returns its output. plain writes the index to its input.
// Closing the reader ends the program. ErrRecipe if the program cannot be started or
// fails.
func (r *recipe) run(ctx context.Context, plain func(context.Context, io.Writer) error) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, r.argv[0], append(r.argv[1:len(r.argv):len(r.argv)], "-c")...)
	// XZ_OPT, GZIP and similar variables change the output.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.WaitDelay = 5 * time.Second
	var complaint bytes.Buffer
	cmd.Stderr = &limitedBuffer{b: &complaint, left: 4 << 10}
	in, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("%w: %s: %w", ErrRecipe, r.name(), err)
	}
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, priority)
	p := &program{r: out, name: r.name(), cancel: cancel, written: make(chan error, 1)}
	p.wait = sync.OnceValue(func() error {
		werr := <-p.written
		err := cmd.Wait()
		if text := strings.TrimSpace(complaint.String()); err != nil && text != "" {
			err = fmt.Errorf("%w: %s", err, excerpt.Of(text))
		}
		switch {
		case werr != nil && !errors.Is(werr, syscall.EPIPE):
			return werr // the error is that of the input
		case err != nil:
			return fmt.Errorf("%w: %s: %w", ErrRecipe, r.name(), err)
		case werr != nil:
			return fmt.Errorf("%w: %s ended before it had read the index", ErrRecipe, r.name())
		}
		return nil
	})
	go func() { p.written <- errors.Join(plain(ctx, in), in.Close()) }()
	return p, nil
}

// program is the output of a running program.
type program struct {
	r       io.Reader
	name    string
	cancel  context.CancelFunc
	written chan error
	wait    func() error
}

func (p *program) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if err != nil {
		p.end(err)
		if werr := p.wait(); werr != nil {
			return n, werr
		}
	}
	return n, err
}

// end stops the program unless it has ended by itself.
func (p *program) end(err error) {
	if err != io.EOF {
		p.cancel()
	}
}

// Close ends the program.
func (p *program) Close() error {
	p.cancel()
	_ = p.wait()
	return nil
}

// version returns the version that the program prints.
func (r *recipe) version(ctx context.Context) (string, error) {
	tell := r.tell
	if tell == nil {
		tell = []string{"--version"}
	}
	cmd := exec.CommandContext(ctx, r.argv[0], tell...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	var out bytes.Buffer
	w := &limitedBuffer{b: &out, left: 4 << 10}
	cmd.Stdout, cmd.Stderr = w, w // bzip2 prints it on standard error
	if err := cmd.Run(); err != nil && out.Len() == 0 {
		return "", fmt.Errorf("%w: %s --version: %w", ErrRecipe, r.argv[0], err)
	}
	line, _ := bufio.NewReader(&out).ReadString('\n')
	return excerpt.Of(strings.TrimSpace(line)), nil
}

// limitedBuffer keeps the beginning of the bytes written to it.
type limitedBuffer struct {
	b    *bytes.Buffer
	left int
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.b.Write(p[:n])
	l.left -= n
	return len(p), nil
}
