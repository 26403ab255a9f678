package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os/exec"
	"strings"
	"syscall"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/buildenv"
	"example.org/snapd/internal/compare"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze/stream"
	"example.org/snapd/internal/image"
	"example.org/snapd/internal/iso9660"
	"example.org/snapd/internal/iuk"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/squashfs"
)

// usageError is an error in the command line.
type usageError struct {
	verb string // whose help the hint names
	msg  string
	hint string // instead of the help
}

func (e *usageError) Error() string { return e.msg }

// exitError ends snapctl with an exit code after all output has been printed.
type exitError int

func (e exitError) Error() string { return "exit" }

// exitCode returns an error for the exit code of a result.
func exitCode(code int) error {
	if code == api.ExitOK {
		return nil
	}
	return exitError(code)
}

// advice is the exit code and hint for an error.
type advice struct {
	code   string // code of an api.Error; "" for a local one
	reason string // reason of an api.Error; "" for any
	is     error  // sentinel of a local error
	and    error  // another one that it wraps as well
	verb   string // only for this verb, or for verbs of this group
	exit   int
	hint   string // VERB, NAME and ARGS stand for the command that was run
	dry    string // in place of hint after a dry run of a freeze, if it differs
}

// advices maps errors to exit codes and hints. The first matching row counts. A hint
// must apply to every error that matches its row. Causes with the same code but
// different remedies have rows with a reason, above the row of the code. No hint is
// better than a guess.
var advices = []advice{
	{is: context.Canceled, exit: api.ExitInterrupted},
	{is: client.ErrNoDaemon, and: fs.ErrPermission, exit: api.ExitFailed, hint: "only root, the user that runs snapd and the members of its socket_group may do this"},
	{is: client.ErrNoDaemon, exit: api.ExitFailed, hint: "start snapd with: snapd --config config.toml (snapctl init --from-apt writes one), or give its socket with --socket"},

	{code: api.CodeUsage, reason: "attestation", exit: api.ExitFailed, hint: "expected what snapctl attest --output FILE writes: a DSSE envelope with an in-toto statement"},
	{code: api.CodeUsage, reason: "rebuilders", exit: api.ExitUsage, hint: "expected a line \"rebuilder ...\" for each rebuilder, with its public keys below (docs/ATTEST.md)"},
	{code: api.CodeUsage, reason: "builders", exit: api.ExitUsage, hint: "expected a line \"builder ...\" for each builder, with its public keys below (docs/ATTEST.md)"},
	{code: api.CodeVerify, reason: "other_freeze", exit: api.ExitVerify, hint: "nothing was kept: the attestation is about another freeze than the one with this name on this server"},
	{code: api.CodeUsage, reason: "role", exit: api.ExitUsage, hint: "ask a node whose role is \"all\""},
	{code: api.CodeUsage, reason: "reference", exit: api.ExitUsage, hint: "list snapshots and freezes with: snapctl list"},
	{code: api.CodeUsage, reason: "name", exit: api.ExitUsage, hint: "choose another name"},
	{code: api.CodeUsage, reason: "log_origin", exit: api.ExitUsage},
	{code: api.CodeUsage, reason: "log_policy", exit: api.ExitUsage, hint: "check that this is the right file"},
	{code: api.CodeUsage, reason: "log_key", exit: api.ExitUsage, hint: "check that this is the right file"},
	{code: api.CodeUsage, reason: "query", exit: api.ExitUsage, hint: "read what a query may contain with: snapctl help packages"},
	{code: api.CodeUsage, reason: "format", exit: api.ExitUsage, hint: "choose the format with --format; list the formats with: snapctl help freeze"},
	{code: api.CodeUsage, reason: "malformed_manifest", exit: api.ExitFailed},
	{code: api.CodeUsage, reason: "empty_manifest", exit: api.ExitUsage, hint: "check that this is the right file"},
	{code: api.CodeUsage, reason: "too_large", exit: api.ExitFailed, hint: "check that this is the right file"},
	{code: api.CodeUsage, reason: "not_regular", exit: api.ExitFailed, hint: "expected a regular file: copy the content into one"},
	{code: api.CodeUsage, reason: "is_directory", exit: api.ExitFailed, hint: "expected a file, not a directory"},
	{code: api.CodeUsage, reason: "read_only", exit: api.ExitFailed, hint: "run it as a user that may write this file"},
	{code: api.CodeUsage, reason: "permission", exit: api.ExitFailed, hint: "the user that runs snapd needs access to it"},
	{code: api.CodeUsage, reason: "local_mirror", exit: api.ExitUsage, hint: "add packages with: snapctl add NAME FILE"},
	{code: api.CodeUsage, reason: "not_local", exit: api.ExitUsage, hint: "configure a mirror for your own packages with local = true"},
	{code: api.CodeUsage, reason: "not_export", exit: api.ExitFailed, hint: "expected what snapctl export REF - writes"},
	{code: api.CodeUsage, reason: "not_package", exit: api.ExitFailed},
	{code: api.CodeUsage, reason: "idempotency_key", exit: api.ExitUsage},
	{code: api.CodeUsage, exit: api.ExitUsage, hint: "snapctl help VERB"},
	{code: api.CodeUnauthorized, exit: api.ExitFailed, hint: "ask an administrator of the server for a token"},
	{code: api.CodeForbidden, exit: api.ExitFailed},
	{code: api.CodeRateLimited, exit: api.ExitFailed, hint: "try again in a minute, with another token"},
	{code: api.CodeTooLarge, exit: api.ExitFailed, hint: "send less at once; files are bounded by max_upload in [api] of the server"},
	{code: api.CodeNotFound, reason: "verb", exit: api.ExitUsage, hint: "the server's snapd is older than this snapctl: update it"},
	{code: api.CodeNotFound, reason: "mirror", exit: api.ExitFailed, hint: "snapctl mirror list"},
	{code: api.CodeNotFound, verb: "mirror", exit: api.ExitFailed, hint: "snapctl mirror list"},
	{code: api.CodeNotFound, verb: "token", exit: api.ExitFailed, hint: "snapctl token list"},
	{code: api.CodeNotFound, verb: "webhook redeliver", exit: api.ExitFailed, hint: "find the id of the event with: snapctl webhook log"},
	{code: api.CodeNotFound, verb: "webhook", exit: api.ExitFailed, hint: "snapctl webhook list"},
	{code: api.CodeNotFound, verb: "jobs", exit: api.ExitFailed, hint: "snapctl jobs"},
	{code: api.CodeNotFound, reason: "blob", exit: api.ExitFailed, hint: "get missing blobs again with: snapctl fsck --repair"},
	{code: api.CodeNotFound, reason: "index_program", exit: api.ExitFailed, hint: "install the version of the program that it names on the server"},
	{code: api.CodeNotFound, reason: "index_made", exit: api.ExitFailed, hint: "try again later"},
	{code: api.CodeNotFound, reason: "no_indices", exit: api.ExitFailed},
	{code: api.CodeNotFound, reason: "package", exit: api.ExitFailed, hint: "list what the mirror has with: snapctl packages NAME@latest"},
	{code: api.CodeNotFound, reason: "no_package", exit: api.ExitFailed, hint: "list what it has with: snapctl packages NAME"},
	{code: api.CodeNotFound, verb: "freeze", exit: api.ExitFailed, hint: "list what exists with: snapctl list, snapctl record list; take a first snapshot with: snapctl sync"},
	{code: api.CodeNotFound, verb: "record start", exit: api.ExitFailed, hint: "list snapshots with: snapctl list; take a first one with: snapctl sync"},
	{code: api.CodeNotFound, verb: "label", exit: api.ExitFailed, hint: "snapctl list --frozen"},
	{code: api.CodeNotFound, verb: "export", exit: api.ExitFailed, hint: "list freezes with: snapctl list --frozen; the parent directory of DIR must exist"},
	{code: api.CodeNotFound, verb: "import", exit: api.ExitFailed, hint: "DIR is a directory written by snapctl export, on the machine that runs snapd"},
	{code: api.CodeNotFound, verb: "channel set", exit: api.ExitFailed, hint: "snapctl list --frozen"},
	{code: api.CodeNotFound, verb: "channel", exit: api.ExitFailed, hint: "snapctl channel list"},
	{code: api.CodeNotFound, verb: "record", exit: api.ExitFailed, hint: "snapctl record list"},
	{code: api.CodeNotFound, verb: "attest import", exit: api.ExitFailed, hint: "import the freeze that it is about first: snapctl import DIR"},
	{code: api.CodeNotFound, verb: "attest rm", exit: api.ExitFailed, hint: "list what is kept with: snapctl attest list NAME"},
	{code: api.CodeNotFound, verb: "attest", exit: api.ExitFailed, hint: "snapctl list --frozen, snapctl image list"},
	{code: api.CodeNotFound, verb: "image", exit: api.ExitFailed, hint: "snapctl list --frozen"},
	{code: api.CodeNotFound, verb: "rebuild", exit: api.ExitFailed, hint: "snapctl image list"},
	{code: api.CodeNotFound, verb: "iuk", exit: api.ExitFailed, hint: "snapctl image list"},
	{code: api.CodeNotFound, exit: api.ExitFailed, hint: "snapctl list"},
	{code: "no_image", exit: api.ExitFailed, hint: "record one with: snapctl image build NAME, or snapctl image add NAME FILE"},
	{code: "ambiguous_image", exit: api.ExitFailed, hint: "choose one with --variant"},
	{code: api.CodeGone, verb: "channel", exit: api.ExitFailed, hint: "snapctl channel list"},
	{code: api.CodeGone, exit: api.ExitFailed, hint: "list the snapshots that still exist with: snapctl list"},
	{code: api.CodeExists, reason: "log", exit: api.ExitFailed, hint: "choose another name"},
	{code: api.CodeExists, reason: "other_bytes", exit: api.ExitFailed, hint: "a version never changes: build the package again with a higher version"},
	{code: api.CodeExists, verb: "token", exit: api.ExitFailed, hint: "end it with: snapctl token revoke NAME"},
	{code: api.CodeInUse, reason: "revoked", exit: api.ExitFailed},
	{code: api.CodeExists, verb: "freeze", exit: api.ExitFailed, hint: "a freeze never changes: choose another name, or look at the existing one with: snapctl show NAME"},
	{code: api.CodeExists, verb: "channel", exit: api.ExitFailed, hint: "choose another name; see what uses this one with: snapctl record list, snapctl list --frozen"},
	{code: api.CodeExists, verb: "record", exit: api.ExitFailed, hint: "choose another name; see what uses this one with: snapctl record list, snapctl list --frozen"},
	{code: api.CodeExists, exit: api.ExitFailed, hint: "snapctl list"},
	{code: api.CodeRollback, exit: api.ExitVerify, hint: "nothing was changed and the last snapshot is still served; if upstream really went back, accept its older state once with: snapctl sync NAME --accept-rollback"},
	{code: api.CodeVerify, verb: "add", exit: api.ExitVerify, hint: "nothing was added"},
	{code: api.CodeVerify, reason: "corrupt_blob", exit: api.ExitVerify, hint: "look for damaged blobs and download them again with: snapctl fsck --repair"},
	{code: api.CodeVerify, reason: "unknown_key", verb: "sync", exit: api.ExitVerify, hint: "nothing was changed; compare the key with the mirror's keyring: snapctl mirror show NAME"},
	{code: api.CodeVerify, reason: "untrusted", verb: "sync", exit: api.ExitVerify, hint: "nothing was changed; see how the mirror is verified with: snapctl mirror show NAME"},
	{code: api.CodeVerify, reason: "expired", verb: "sync", exit: api.ExitVerify, hint: "nothing was changed: upstream no longer updates this suite, or its server is out of date; see the mirror's URLs and suites with: snapctl mirror show NAME"},
	{code: api.CodeVerify, reason: "future", verb: "sync", exit: api.ExitVerify, hint: "nothing was changed; check this machine's clock"},
	{code: api.CodeVerify, reason: "mismatch", verb: "import", exit: api.ExitVerify, hint: "nothing was imported; list the faults with: snapctl verify NAME"},
	{code: api.CodeVerify, reason: "mismatch", exit: api.ExitVerify, hint: "nothing was changed: upstream serves another file than its index lists; try again later, or add another URL to the mirror"},
	{code: api.CodeVerify, verb: "import", exit: api.ExitVerify, hint: "nothing was imported; list the faults with: snapctl verify NAME"},
	{code: api.CodeVerify, verb: "sync", exit: api.ExitVerify, hint: "nothing was changed; earlier snapshots are still served"},
	{code: api.CodeVerify, exit: api.ExitVerify},
	{code: api.CodeUnsupported, exit: api.ExitFailed},
	{code: api.CodeUnavailable, reason: "unreachable", exit: api.ExitFailed, hint: "upstream cannot be reached: try again later"},
	{code: api.CodeUnavailable, reason: "torn", exit: api.ExitFailed, hint: "upstream is being updated: try again later"},
	{code: api.CodeUnavailable, reason: "time", exit: api.ExitFailed, hint: "it took too long: try again later"},
	{code: api.CodeUnavailable, reason: "leased", exit: api.ExitFailed, hint: "another node of this installation is the leader: try again later"},
	{code: api.CodeUnavailable, reason: "store", exit: api.ExitFailed, hint: "the blob store did not answer: try again later"},
	{code: api.CodeUnavailable, reason: "metadata", exit: api.ExitFailed, hint: "the database of the metadata did not answer: try again later"},
	{code: api.CodeUnavailable, reason: "certificate", exit: api.ExitFailed, hint: "check the mirror's url; if a certificate authority of your own signed the certificate, name its file in the mirror's ca_file"},
	{code: api.CodeUnavailable, reason: "local", exit: api.ExitFailed, hint: "check that the directory of the mirror's file: URL exists and that the user that runs snapd may read it"},
	{code: api.CodeUnavailable, reason: "denied", exit: api.ExitFailed, hint: "if upstream requires a login, give the mirror an auth_file; otherwise check its url, suites and components"},
	{code: api.CodeUnavailable, reason: "not_repository", exit: api.ExitFailed, hint: "check the mirror's url: it leads to a web page"},
	{code: api.CodeUnavailable, reason: "malformed", verb: "add", exit: api.ExitFailed, hint: "nothing was added: copy the file again, or build it again"},
	{code: api.CodeUnavailable, reason: "malformed", exit: api.ExitFailed, hint: "nothing was changed; only upstream can repair its metadata"},
	{code: api.CodeUnavailable, exit: api.ExitFailed},
	{code: api.CodeNoSpace, exit: api.ExitFailed, hint: "see what can be removed with: snapctl gc --dry-run"},
	{code: api.CodeAmbiguous, reason: "two_contents", exit: api.ExitFailed},
	{code: api.CodeAmbiguous, reason: "versions", exit: api.ExitFailed, hint: "choose one with PACKAGE=VERSION, or an architecture with PACKAGE:ARCH"},
	{code: api.CodeAmbiguous, exit: api.ExitFailed, hint: "choose the snapshots with --mirror MIRROR@TIME, or list every candidate with --dry-run",
		dry: "choose the snapshots with --mirror MIRROR@TIME"},
	{code: api.CodeMissing, verb: "sync", exit: api.ExitFailed, hint: "nothing was changed: upstream lacks files that it lists, or suites, components or architectures that the mirror is configured with; show the mirror with: snapctl mirror show NAME"},
	{code: api.CodeMissing, verb: "freeze", exit: api.ExitFailed, hint: "list all entries with --dry-run; import an older state that has them with snapctl sync M --from-url URL --as T, record them as missing with --allow-missing, or leave out source packages with --no-sources",
		dry: "import an older state that has them with snapctl sync M --from-url URL --as T, record them as missing with --allow-missing, or leave out source packages with --no-sources"},
	{code: api.CodeMissing, exit: api.ExitFailed, hint: "import an older state that has it with: snapctl sync M --from-url URL --as T"},
	{code: api.CodeClock, verb: "sync", exit: api.ExitFailed, hint: "set the system clock and sync again; if the clock is right, run: snapctl sync NAME --accept-clock"},
	{code: api.CodeClock, verb: "gc", exit: api.ExitFailed, hint: "set the system clock; if it is right, run: snapctl sync --accept-clock"},
	{code: api.CodeClock, verb: "channel", exit: api.ExitFailed, hint: "wait until that time, or set the system clock if it is wrong"},
	{code: api.CodeClock, exit: api.ExitFailed, hint: "set the system clock; a signing key created while it was wrong must be replaced"},
	{code: api.CodeNoSnapshot, exit: api.ExitFailed, hint: "choose the mirrors with --mirror, or take their first snapshots with: snapctl sync"},
	{code: api.CodeEmpty, exit: api.ExitFailed, hint: "freeze it anyway with --allow-empty"},
	{code: api.CodeRunning, exit: api.ExitFailed, hint: "stop the recording when the build is done: snapctl record stop"},
	{code: api.CodeBroken, exit: api.ExitFailed, hint: "add what is missing with --replace, or freeze it as it is with --allow-broken"},
	{code: api.CodeNeedsAll, exit: api.ExitFailed, hint: "download them all with --all, or freeze fewer packages with --manifest or --package"},
	{code: api.CodeInUse, reason: "log_moved", exit: api.ExitFailed, hint: "run the command again"},
	{code: api.CodeInUse, reason: "locked", exit: api.ExitFailed, hint: "another program has the data directory open: stop it"},
	{code: api.CodeInUse, reason: "stopped", exit: api.ExitFailed, hint: "start another recording with: snapctl record start"},
	{code: api.CodeInUse, reason: "busy", verb: "freeze", exit: api.ExitFailed, hint: "wait until the other one has finished: snapctl show NAME"},
	{code: api.CodeInUse, reason: "busy", verb: "import", exit: api.ExitFailed, hint: "wait until the other one has finished: snapctl list --frozen"},
	{code: api.CodeInUse, reason: "busy", verb: "channel", exit: api.ExitFailed, hint: "wait until the other one has finished: snapctl channel show NAME"},
	{code: api.CodeInUse, reason: "full", exit: api.ExitFailed},
	{code: api.CodeInUse, reason: "lacks", exit: api.ExitFailed, hint: "freeze the missing parts too, or move the channel anyway with --allow-missing"},
	{code: api.CodeInUse, reason: "info_change", exit: api.ExitFailed, hint: "--allow-info-change moves the channel anyway; each client then needs once: apt-get update --allow-releaseinfo-change"},
	{code: api.CodeInUse, verb: "record rm", exit: api.ExitFailed, hint: "stop it first, when the build is done: snapctl record stop NAME"},
	{code: api.CodeInUse, exit: api.ExitFailed, hint: "see what uses it with: snapctl show NAME"},
	{code: api.CodeInterrupted, exit: api.ExitInterrupted},
	{code: api.CodeInternal, reason: "metadata", exit: api.ExitFailed, hint: "rebuild what can be rebuilt with: snapctl fsck --repair; if faults remain, restore a backup with: snapd restore DIR (docs/OPERATE.md, \"When meta.db is lost or damaged\")"},
	{code: api.CodeInternal, exit: api.ExitFailed, hint: "see snapd's log for details"},

	{is: client.ErrNoServer, exit: api.ExitFailed, hint: "check the URL of --server: it is that of [api] in the server's configuration, and its certificate must be trusted here ($SSL_CERT_FILE names further authorities)"},
	{is: errNoExport, exit: api.ExitFailed, hint: "expected the URL of the files that snapctl export REF DIR wrote, or of its tar stream, whose name ends in .tar"},
	{is: stream.ErrSums, exit: api.ExitVerify, hint: "nothing was changed: the files at this URL are not those that were exported; export them again"},
	{is: fetch.ErrMismatch, exit: api.ExitVerify, hint: "nothing was changed: the files at this URL are not those that were exported; export them again"},
	{is: fetch.ErrCertificate, exit: api.ExitFailed, hint: "the certificate must be trusted here ($SSL_CERT_FILE names further authorities)"},
	{is: attest.ErrMalformed, exit: api.ExitFailed, hint: "expected what snapctl attest --output FILE writes: a DSSE envelope with an in-toto statement"},
	{is: attest.ErrOther, exit: api.ExitVerify},
	{is: attest.ErrBuilders, exit: api.ExitUsage, hint: "expected a line \"builder ...\" for each builder, with its public keys below (docs/ATTEST.md)"},
	{is: attest.ErrRebuilders, exit: api.ExitUsage, hint: "expected a line \"rebuilder ...\" for each rebuilder, with its public keys below (docs/ATTEST.md)"},
	{is: errRebuilder, exit: api.ExitFailed, hint: "nothing of this rebuilder was kept; try again later"},
	{is: errUnconfirmed, exit: api.ExitVerify, hint: "see who says what with: snapctl attest list --builders FILE"},
	{is: client.ErrClearToken, exit: api.ExitFailed},
	{is: client.ErrRedirected, exit: api.ExitFailed},
	{is: errOpenToken, exit: api.ExitFailed, hint: "close it with: chmod o= FILE"},
	{is: errNoToken, exit: api.ExitFailed, hint: "write the secret that snapctl token create printed into it"},
	{is: errNoCertificate, exit: api.ExitFailed, hint: "give a file of certificates, .gpg or .asc; export a key to such a file with: gpg --export FINGERPRINT > key.gpg"},
	{is: errNoSources, exit: api.ExitFailed, hint: "write a configuration to edit with: snapctl init"},
	{is: errExists, exit: api.ExitFailed, hint: "choose another file with --output, or replace it with --force"},
	{is: config.ErrNotEditable, exit: api.ExitFailed, hint: "edit the file by hand, then run: systemctl reload frozen-snapd"},
	{is: config.ErrUnknownMirror, exit: api.ExitFailed, hint: "snapctl mirror list"},
	{is: config.ErrInvalid, exit: api.ExitFailed, hint: "see config.example.toml for every key"},
	{is: iuk.ErrWrongBase, exit: api.ExitVerify, hint: "use the kit made for this base; see which one a kit is for with: snapctl iuk inspect NAME"},
	{is: iuk.ErrNotNew, exit: api.ExitVerify, hint: "create the kit again from these two images: snapctl iuk create"},
	{is: iuk.ErrBase, exit: api.ExitVerify, hint: "remove the attribute with setfattr -x ATTRIBUTE FILE and pack the image again"},
	{is: iuk.ErrOtherVersions, exit: api.ExitVerify, hint: "rename the file to match its contents; see its versions with: snapctl iuk inspect FILE"},
	{is: iuk.ErrOtherUDF, exit: api.ExitFailed, hint: "choose an empty directory with --output"},
	{is: iuk.ErrNoUpgrade, exit: api.ExitFailed, hint: "nothing to undo; install a kit with: snapctl iuk apply FILE --target DIR"},
	{is: iuk.ErrTarget, and: fs.ErrNotExist, exit: api.ExitFailed, hint: "--target is the mount point of the system partition"},
	{is: iuk.ErrBusy, exit: api.ExitFailed, hint: "wait until the other one has finished"},
	{is: image.ErrTools, and: fs.ErrNotExist, exit: api.ExitFailed, hint: "apt-get install mmdebstrap"},
	{is: image.ErrTools, and: exec.ErrNotFound, exit: api.ExitFailed, hint: "apt-get install mmdebstrap"},
	{is: image.ErrTools, exit: api.ExitFailed},
	{is: buildenv.ErrRPMTools, exit: api.ExitFailed, hint: "apt-get install dnf rpm"},
	{is: buildenv.ErrInstall, exit: api.ExitFailed},
	{is: buildenv.ErrMapTool, exit: api.ExitFailed, hint: "apt-get install uidmap"},
	{is: buildenv.ErrIDs, exit: api.ExitFailed, hint: "give the user subordinate IDs, as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"},
	{is: buildenv.ErrNamespaces, exit: api.ExitFailed, hint: "see what the machine needs in docs/BUILD.md"},
	{is: buildenv.ErrSetup, exit: api.ExitFailed},
	{is: buildenv.ErrOutput, exit: api.ExitFailed},
	{is: errNotInFreeze, exit: api.ExitFailed, hint: "list what it has with: snapctl packages NAME"},
	{is: errServer, exit: api.ExitFailed, hint: "this machine must reach the address that the server prints in: snapctl sources NAME"},
	{is: image.ErrLacks, exit: api.ExitFailed, hint: "check that the freeze contains what the variant needs: snapctl packages NAME"},
	{is: image.ErrSpec, verb: "rebuild", exit: api.ExitFailed, hint: "snapd can only rebuild images that it built: snapctl image build NAME"},
	{is: errKeyExists, exit: api.ExitFailed, hint: "move the file away first, or change its expiry with: snapctl key renew"},
	{is: iuk.ErrKit, exit: api.ExitVerify, hint: "the file is damaged or not a kit: download it again, or create it again with: snapctl iuk create"},
	{is: iuk.ErrFAT, exit: api.ExitFailed, hint: "the system partition is FAT32: rename the file in the image, or choose another --to-version"},
	{is: compare.ErrFormats, exit: api.ExitUsage, hint: "compare two images, two packages, two archives or two directories"},
	{is: compare.ErrNoPath, exit: api.ExitUsage, hint: "leave out --explain to list the paths that differ"},
	{is: compare.ErrExpected, exit: api.ExitUsage, hint: "each line is a glob and a code of docs/COMPARE.md, such as: /etc/machine-id random-id"},
	{is: compare.ErrCorrupt, exit: api.ExitFailed, hint: "the file is damaged: copy it again, or build it again"},
	{is: iuk.ErrInput, and: squashfs.ErrNotSquashfs, exit: api.ExitFailed, hint: "an image is a SquashFS file, or an ISO that contains one"},
	{is: iuk.ErrInput, and: iso9660.ErrFormat, exit: api.ExitFailed, hint: "an image is a SquashFS file, or an ISO that contains one"},
	{is: iuk.ErrInput, and: fs.ErrNotExist, exit: api.ExitFailed, hint: "an image is a SquashFS file, or an ISO that contains one"},
	{is: iuk.ErrInput, and: squashfs.ErrCorrupt, exit: api.ExitFailed, hint: "the image is damaged: copy it again, or build it again"},
	{is: iuk.ErrInput, and: iso9660.ErrCorrupt, exit: api.ExitFailed, hint: "the image is damaged: copy it again, or build it again"},
	{is: iuk.ErrInput, exit: api.ExitFailed},
	{is: squashfs.ErrNotSquashfs, verb: "iuk", exit: api.ExitVerify, hint: "the file is damaged or not a kit: download it again, or create it again with: snapctl iuk create"},
	{is: squashfs.ErrCorrupt, verb: "iuk", exit: api.ExitVerify, hint: "the file is damaged: download it again, or create it again with: snapctl iuk create"},
	{is: iuk.ErrUnfinished, exit: api.ExitFailed, hint: "complete it by running the command again, or restore the old state with --rollback"},
	{is: iuk.ErrNoSpace, exit: api.ExitFailed, hint: "free space on the target and run the command again"},
	{is: iuk.ErrReadOnly, exit: api.ExitFailed, hint: "mount the target read-write and run the command again"},
	{is: sign.ErrKeyMode, exit: api.ExitFailed, hint: "only its owner may read a signing key: chmod 600 the file"},
	{is: sign.ErrKeyFile, exit: api.ExitFailed},
	{is: sign.ErrBadSignature, exit: api.ExitVerify},
	{is: sign.ErrUnknownKey, exit: api.ExitVerify},
	{is: sign.ErrExpired, exit: api.ExitVerify},
	{is: sign.ErrRevoked, exit: api.ExitVerify},
	{is: sign.ErrWeak, exit: api.ExitVerify},
	{is: sign.ErrNoSignature, exit: api.ExitVerify},
	{is: syscall.EISDIR, exit: api.ExitFailed, hint: "expected a file, not a directory"},
	{is: regfile.ErrNotRegular, exit: api.ExitFailed, hint: "expected a regular file: copy the content into one"},
	{is: errTooLarge, exit: api.ExitFailed, hint: "check that this is the right file"},
	{is: regfile.ErrTooLarge, exit: api.ExitFailed, hint: "check that this is the right file"},
	{is: fs.ErrNotExist, verb: "freeze", exit: api.ExitFailed, hint: "--manifest expects a file on this machine, or - for standard input"},
	{is: fs.ErrNotExist, verb: "add", exit: api.ExitFailed, hint: "the files that a .changes lists must be in its directory"},
	{is: fs.ErrNotExist, verb: "record show", exit: api.ExitFailed, hint: "--status expects a file on this machine, or - for standard input"},
	{is: fs.ErrNotExist, verb: "verify", exit: api.ExitFailed, hint: "REF is a snapshot or freeze (see snapctl list), DIR a directory written by snapctl export"},
	{is: fs.ErrNotExist, verb: "init", exit: api.ExitFailed, hint: "without file names, --from-apt and --from-dnf read this machine's own sources"},
	{is: fs.ErrNotExist, verb: "key", exit: api.ExitFailed, hint: "give the key with --key-file or --config, or create one with: snapctl key generate"},
	{is: fs.ErrNotExist, exit: api.ExitFailed, hint: "check the file name"},
}

// errExists means that a file would be overwritten.
var errExists = errors.New("the file exists")

// errOpenToken means that any user can read a file with a token.
var errOpenToken = errors.New("every user can read it")

// errNoToken means that a file has no token.
var errNoToken = errors.New("expected a token in its first line")

// errNoCertificate means that the value of an option is not a file of public keys.
var errNoCertificate = errors.New("expected a file of public keys")

// explain returns the exit code and hint for an error of l's verb.
func explain(err error, l *line) (exit int, hint string) {
	return explainCall(err, l.name(), l.args)
}

// explainCall is like explain, for the verb called name and its args.
func explainCall(err error, name string, args []string) (exit int, hint string) {
	var u *usageError
	if errors.As(err, &u) && u.hint != "" {
		return api.ExitUsage, u.hint
	} else if u != nil {
		return api.ExitUsage, strings.TrimSpace("snapctl help " + u.verb)
	}
	exit = api.ExitFailed
	var e *api.Error
	isAPI := errors.As(err, &e)
	for _, a := range advices {
		fits := a.code == "" && errors.Is(err, a.is) && (a.and == nil || errors.Is(err, a.and))
		if isAPI {
			fits = a.code == e.Code && (a.reason == "" || a.reason == e.Reason)
		}
		if !fits || a.verb != "" && a.verb != name && !strings.HasPrefix(name, a.verb+" ") {
			continue
		}
		exit, hint = a.exit, a.hint
		if a.dry != "" && isAPI && dryRun(e) {
			hint = a.dry
		}
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

// dryRun reports whether an error ended a dry run of a freeze, which has listed every
// entry.
func dryRun(e *api.Error) bool {
	var r api.FreezeResult
	return decodeDetail(e, &r) && r.DryRun
}

// finish prints the outcome and returns the exit code.
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

// localCode returns the code of an error found by snapctl itself.
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

// decodeDetail decodes the detail of an api.Error into v.
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
