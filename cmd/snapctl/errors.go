package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/image"
	"example.org/snapd/internal/iuk"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/squashfs"
)

// usageError is an error in the command line.
type usageError struct {
	verb string // what help to read
	msg  string
}

func (e *usageError) Error() string { return e.msg }

// exitError ends snapctl with a code when everything has been said.
type exitError int

func (e exitError) Error() string { return "exit" }

// exitCode makes an error of a result's exit code.
func exitCode(code int) error {
	if code == api.ExitOK {
		return nil
	}
	return exitError(code)
}

// advice is what snapctl makes of an error.
type advice struct {
	code string // of an api.Error; "" for a local one
	is   error  // sentinel of a local error
	verb string // only for this verb, or for verbs of this group
	exit int
	hint string // VERB, NAME and ARGS stand for what was called
}

// advices is the one table from errors to exit codes and hints. The first row
// that fits counts.
var advices = []advice{
	{is: context.Canceled, exit: api.ExitInterrupted},
	{is: fs.ErrPermission, exit: api.ExitFailed, hint: "only the user that snapd runs as, and root, may do this"},
	{is: api.ErrNoDaemon, exit: api.ExitFailed, hint: "start it with: snapd --config config.toml (snapctl init --from-apt writes one), or name its socket with --socket"},

	{code: api.CodeUsage, exit: api.ExitUsage, hint: "snapctl help VERB"},
	{code: api.CodeNotFound, verb: "mirror", exit: api.ExitFailed, hint: "snapctl mirror list"},
	{code: api.CodeNotFound, verb: "sync", exit: api.ExitFailed, hint: "snapctl mirror list"},
	{code: api.CodeNotFound, verb: "list", exit: api.ExitFailed, hint: "snapctl mirror list"},
	{code: api.CodeNotFound, verb: "freeze", exit: api.ExitFailed, hint: "see what there is with: snapctl list, snapctl record list; take a first snapshot with: snapctl sync"},
	{code: api.CodeNotFound, verb: "record start", exit: api.ExitFailed, hint: "see what there is with: snapctl list; take a first snapshot with: snapctl sync"},
	{code: api.CodeNotFound, verb: "export", exit: api.ExitFailed, hint: "see what can be exported with: snapctl list --frozen; the directory above DIR must be there"},
	{code: api.CodeNotFound, verb: "import", exit: api.ExitFailed, hint: "DIR is a directory that snapctl export wrote, on the machine that snapd runs on"},
	{code: api.CodeNotFound, verb: "record", exit: api.ExitFailed, hint: "snapctl record list"},
	{code: api.CodeNotFound, verb: "image", exit: api.ExitFailed, hint: "snapctl list --frozen"},
	{code: api.CodeNotFound, verb: "rebuild", exit: api.ExitFailed, hint: "snapctl image list"},
	{code: api.CodeNotFound, verb: "iuk", exit: api.ExitFailed, hint: "snapctl image list"},
	{code: api.CodeNotFound, exit: api.ExitFailed, hint: "snapctl list"},
	{code: "no_image", exit: api.ExitFailed, hint: "record one with: snapctl image build NAME, or snapctl image add NAME FILE"},
	{code: "ambiguous_image", exit: api.ExitFailed, hint: "choose one with --variant"},
	{code: api.CodeGone, exit: api.ExitFailed, hint: "snapctl list (shows the snapshots that are still there)"},
	{code: api.CodeExists, verb: "freeze", exit: api.ExitFailed, hint: "a frozen snapshot never changes: choose another name, or compare with: snapctl show NAME"},
	{code: api.CodeExists, verb: "record", exit: api.ExitFailed, hint: "choose another name; see what has this one with: snapctl record list, snapctl list --frozen"},
	{code: api.CodeExists, exit: api.ExitFailed, hint: "snapctl list"},
	{code: api.CodeRollback, exit: api.ExitVerify, hint: "nothing was changed and the last snapshot is served; if upstream really went back, take its state once with: snapctl sync NAME --accept-rollback"},
	{code: api.CodeVerify, verb: "sync", exit: api.ExitVerify, hint: "nothing was changed and the last snapshot is served: check the mirror's keyring and URL with: snapctl mirror show NAME"},
	{code: api.CodeVerify, verb: "import", exit: api.ExitVerify, hint: "nothing was taken in: see what does not hold with: snapctl verify NAME"},
	{code: api.CodeVerify, exit: api.ExitVerify, hint: "nothing was changed: look for damaged blobs with: snapctl fsck"},
	{code: api.CodeUnsupported, exit: api.ExitFailed, hint: "upstream has this in a form that snapd does not take: nothing was changed; see the mirror with: snapctl mirror show NAME"},
	{code: api.CodeUnavailable, exit: api.ExitFailed, hint: "upstream cannot be reached now: run the command again later"},
	{code: api.CodeNoSpace, exit: api.ExitFailed, hint: "snapctl gc --dry-run (shows what can go)"},
	{code: api.CodeAmbiguous, exit: api.ExitFailed, hint: "choose the snapshots with --mirror MIRROR@TIME, or see every candidate with: --dry-run"},
	{code: api.CodeMissing, verb: "sync", exit: api.ExitFailed, hint: "upstream does not have what it lists, or the mirror's suites, components and architectures name what it lacks: nothing was changed; see the mirror with: snapctl mirror show NAME"},
	{code: api.CodeMissing, verb: "freeze", exit: api.ExitFailed, hint: "see all entries with --dry-run; take in what is missing with snapctl sync M --from-url URL --as T, record it as missing with --allow-missing, or leave source packages out with --no-sources"},
	{code: api.CodeMissing, exit: api.ExitFailed, hint: "take in what is missing with: snapctl sync M --from-url URL --as T"},
	{code: api.CodeClock, verb: "sync", exit: api.ExitFailed, hint: "set the system clock and sync again; if it is right, say so with: snapctl sync NAME --accept-clock"},
	{code: api.CodeClock, verb: "gc", exit: api.ExitFailed, hint: "set the system clock, or say that it is right with: snapctl sync --accept-clock"},
	{code: api.CodeClock, exit: api.ExitFailed, hint: "set the system clock; a signing key that was made while it was wrong must be replaced"},
	{code: api.CodeNoSnapshot, exit: api.ExitFailed, hint: "choose the mirrors with --mirror, or take their first snapshot with: snapctl sync"},
	{code: api.CodeEmpty, exit: api.ExitFailed, hint: "freeze it all the same with --allow-empty"},
	{code: api.CodeRunning, exit: api.ExitFailed, hint: "end the recording first, when the build is done: snapctl record stop"},
	{code: api.CodeBroken, exit: api.ExitFailed, hint: "take in what is missing with --replace, or freeze it as it is with --allow-broken"},
	{code: api.CodeNeedsAll, exit: api.ExitFailed, hint: "fetch them with --all, or freeze less with --manifest or --package"},
	{code: api.CodeInUse, verb: "freeze", exit: api.ExitFailed, hint: "wait until the other one has ended: snapctl show NAME"},
	{code: api.CodeInUse, verb: "import", exit: api.ExitFailed, hint: "wait until the other one has ended: snapctl list --frozen"},
	{code: api.CodeInUse, exit: api.ExitFailed, hint: "snapctl show NAME (says what uses it)"},
	{code: api.CodeInterrupted, exit: api.ExitInterrupted},
	{code: api.CodeInternal, exit: api.ExitFailed, hint: "snapd's log has more"},

	{is: errNoCertificate, exit: api.ExitFailed, hint: "name a file of certificates, .gpg or .asc; one key of a keyring is written into such a file with: gpg --export FINGERPRINT > key.gpg"},
	{is: errNoSources, exit: api.ExitFailed, hint: "snapctl init (writes a configuration with an example to edit)"},
	{is: errExists, exit: api.ExitFailed, hint: "choose another file with --output, or replace it with --force"},
	{is: config.ErrInvalid, exit: api.ExitFailed, hint: "config.example.toml documents every key"},
	{is: iuk.ErrWrongBase, exit: api.ExitVerify, hint: "take the kit that was made for this base: snapctl iuk inspect NAME (shows which)"},
	{is: iuk.ErrNotNew, exit: api.ExitVerify, hint: "make the kit again from these two images: snapctl iuk create"},
	{is: iuk.ErrBase, exit: api.ExitVerify, hint: "remove the attribute from the tree and pack the image again: setfattr -x ATTRIBUTE FILE"},
	{is: iuk.ErrOtherVersions, exit: api.ExitVerify, hint: "name the file after what it is: snapctl iuk inspect FILE (shows its versions)"},
	{is: iuk.ErrUDF, exit: api.ExitFailed, hint: "choose an empty directory with --output"},
	{is: iuk.ErrNoUpgrade, exit: api.ExitFailed, hint: "there is nothing to undo: install a kit with: snapctl iuk apply FILE --target DIR"},
	{is: iuk.ErrTarget, exit: api.ExitFailed, hint: "--target is the directory on which the system partition is mounted"},
	{is: iuk.ErrBusy, exit: api.ExitFailed, hint: "wait until the other one has ended"},
	{is: image.ErrTools, exit: api.ExitFailed, hint: "apt-get install mmdebstrap"},
	{is: image.ErrBuild, exit: api.ExitFailed, hint: "check that the frozen snapshot holds what the variant needs: snapctl packages NAME"},
	{is: image.ErrSpec, exit: api.ExitFailed, hint: "record how it was built elsewhere, or build it with: snapctl image build NAME"},
	{is: errKeyExists, exit: api.ExitFailed, hint: "move it away first, or move its expiry with: snapctl key renew"},
	{is: iuk.ErrKit, exit: api.ExitVerify, hint: "the file is damaged or no kit: fetch it again, or make it again with: snapctl iuk create"},
	{is: iuk.ErrFAT, exit: api.ExitFailed, hint: "change it in the image, or choose another --to-version: a system partition is FAT32"},
	{is: iuk.ErrInput, exit: api.ExitFailed, hint: "an image is a SquashFS file, or an ISO that holds one"},
	{is: squashfs.ErrNotSquashfs, verb: "iuk", exit: api.ExitVerify, hint: "the file is damaged or no kit: fetch it again, or make it again with: snapctl iuk create"},
	{is: squashfs.ErrCorrupt, verb: "iuk", exit: api.ExitVerify, hint: "the file is damaged: fetch it again, or make it again with: snapctl iuk create"},
	{is: iuk.ErrUnfinished, exit: api.ExitFailed, hint: "complete it by running the command again, or restore the old state with --rollback"},
	{is: iuk.ErrNoSpace, exit: api.ExitFailed, hint: "free space on the target and run the command again"},
	{is: iuk.ErrReadOnly, exit: api.ExitFailed, hint: "mount the target read-write and run the command again"},
	{is: sign.ErrKeyFile, exit: api.ExitFailed, hint: "a signing key belongs to its user alone (mode 0600): snapctl key generate makes one"},
	{is: sign.ErrBadSignature, exit: api.ExitVerify},
	{is: sign.ErrUnknownKey, exit: api.ExitVerify},
	{is: sign.ErrExpired, exit: api.ExitVerify},
	{is: sign.ErrRevoked, exit: api.ExitVerify},
	{is: sign.ErrWeak, exit: api.ExitVerify},
	{is: sign.ErrNoSignature, exit: api.ExitVerify},
	{is: syscall.EISDIR, exit: api.ExitFailed, hint: "name a file, not a directory"},
	{is: regfile.ErrNotRegular, exit: api.ExitFailed, hint: "name a regular file, or copy its content into one"},
	{is: errTooLarge, exit: api.ExitFailed, hint: "look whether this is the file that was meant"},
	{is: regfile.ErrTooLarge, exit: api.ExitFailed, hint: "look whether this is the file that was meant"},
	{is: fs.ErrNotExist, verb: "freeze", exit: api.ExitFailed, hint: "--manifest takes a file on this machine, or - for standard input"},
	{is: fs.ErrNotExist, verb: "record show", exit: api.ExitFailed, hint: "--status takes a file on this machine, or - for standard input"},
	{is: fs.ErrNotExist, verb: "verify", exit: api.ExitFailed, hint: "REF|DIR is a frozen snapshot (snapctl list --frozen), or a directory that snapctl export wrote"},
	{is: fs.ErrNotExist, verb: "init", exit: api.ExitFailed, hint: "--from-apt and --from-dnf read this machine's own files when they name none"},
	{is: fs.ErrNotExist, verb: "key", exit: api.ExitFailed, hint: "say where the key is with --key-file or --config, or make one with: snapctl key generate"},
	{is: fs.ErrNotExist, exit: api.ExitFailed, hint: "check the file's name; it is looked for from the directory that snapctl runs in"},
}

// errExists means that a file is in the way.
var errExists = errors.New("the file exists")

// errNoCertificate means that the value of an option is no file with keys.
var errNoCertificate = errors.New("expected a file of public keys")

// explain finds the exit code and hint of an error of l's verb.
func explain(err error, l *line) (exit int, hint string) {
	return explainCall(err, l.name(), l.args)
}

// explainCall is explain for the verb with the name, called with args.
func explainCall(err error, name string, args []string) (exit int, hint string) {
	var u *usageError
	if errors.As(err, &u) {
		return api.ExitUsage, strings.TrimSpace("snapctl help " + u.verb)
	}
	exit = api.ExitFailed
	var e *api.Error
	isAPI := errors.As(err, &e)
	for _, a := range advices {
		fits := a.code == "" && errors.Is(err, a.is)
		if isAPI {
			fits = a.code == e.Code
		}
		if !fits || a.verb != "" && a.verb != name && !strings.HasPrefix(name, a.verb+" ") {
			continue
		}
		exit, hint = a.exit, a.hint
		break
	}
	if isAPI && e.Hint != "" {
		hint = e.Hint
	}
	if isAPI {
		switch e.Exit {
		case api.ExitFailed, api.ExitUsage, api.ExitPartial, api.ExitVerify, api.ExitInterrupted:
			exit = e.Exit
		}
	}
	arg := "NAME"
	if len(args) > 0 {
		arg = shellWord(args[0])
	}
	hint = strings.TrimSpace(strings.NewReplacer("VERB", name, "NAME", arg).Replace(hint))
	return exit, hint
}

// finish tells the outcome and gives the exit code.
func (p *program) finish(ctx context.Context, u *ui, l *line, err error) int {
	if err == nil {
		return api.ExitOK
	}
	var done exitError
	if errors.As(err, &done) {
		if ferr := u.flush(); ferr != nil {
			u.failure(ferr.Error(), "")
		}
		return int(done)
	}
	exit, hint := explain(err, l)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		exit, hint = api.ExitInterrupted, ""
		err = errors.New("interrupted")
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		if !u.json {
			u.detail(e)
		}
		if u.json {
			c := *e
			c.Message, c.Exit = err.Error(), exit
			u.document(map[string]*api.Error{"error": &c})
		}
	} else if u.json {
		u.document(map[string]*api.Error{"error": {Code: localCode(exit), Message: err.Error(), Exit: exit}})
	}
	u.flush()
	u.failure(err.Error(), hint)
	return exit
}

// localCode is the code of an error that snapctl itself found.
func localCode(exit int) string {
	switch exit {
	case api.ExitUsage:
		return api.CodeUsage
	case api.ExitVerify:
		return api.CodeVerify
	case api.ExitInterrupted:
		return api.CodeInterrupted
	}
	return "failed"
}

// decodeDetail reads what an api.Error carries into v.
func decodeDetail(e *api.Error, v any) bool {
	if e.Detail == nil {
		return false
	}
	b, err := json.Marshal(e.Detail)
	return err == nil && json.Unmarshal(b, v) == nil
}

// shellWord quotes a word for a shell.
func shellWord(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./_~-", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
