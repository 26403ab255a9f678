package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/client"
	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/buildenv"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/s3"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/compare"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/errclass/errclasstest"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/lockfile"
	"example.org/snapd/internal/freeze/sbom"
	"example.org/snapd/internal/freeze/stream"
	"example.org/snapd/internal/image"
	"example.org/snapd/internal/indices"
	"example.org/snapd/internal/iso9660"
	"example.org/snapd/internal/iuk"
	"example.org/snapd/internal/lzma"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/purl"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/deb822"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/repo/rpm/nevra"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/repo/rpm/rpmpkg"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/sequencer"
	"example.org/snapd/internal/tlog/witness"
	"example.org/snapd/internal/webhook"
	"example.org/snapd/internal/webhook/signature"
	"example.org/snapd/internal/yumconf"
)

// hintCase is an error as users see it, with its hint.
type hintCase struct {
	sentinel string // that determines the hint
	err      error
	local    bool // found by snapctl itself, not by snapd
	verb     string
	exit     int
	hint     string
}

// hintCases contains the hint that users see for each sentinel error of the program. A
// hint must apply to this error and not only to its code; "" means no hint. A sentinel
// that is always wrapped in another one is wrapped here too.
var hintCases = []hintCase{
	// A sync that failed.
	{sentinel: "repo.ErrRollback", err: repo.ErrRollback, verb: "sync", exit: 4, hint: "nothing was changed and the last snapshot is still served; if upstream really went back, accept its older state once with: snapctl sync debian --accept-rollback"},
	{sentinel: "repo.ErrRollback", err: errors.Join(repo.ErrRollback, sign.ErrBadSignature), verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "repo.ErrExpired", err: repo.ErrExpired, verb: "sync", exit: 4, hint: "nothing was changed: upstream no longer updates this suite, or its server is out of date; see the mirror's URLs and suites with: snapctl mirror show debian"},
	{sentinel: "repo.ErrFuture", err: repo.ErrFuture, verb: "sync", exit: 4, hint: "nothing was changed; check this machine's clock"},
	{sentinel: "repo.ErrMalformed", err: repo.ErrMalformed, verb: "sync", exit: 1, hint: "nothing was changed; only upstream can repair its metadata"},
	{sentinel: "repo/deb/deb822.ErrMalformed", err: fmt.Errorf("%w: %w", repo.ErrMalformed, deb822.ErrMalformed), verb: "sync", exit: 1, hint: "nothing was changed; only upstream can repair its metadata"},
	{sentinel: "repo/deb/deb822.ErrTooLarge", err: fmt.Errorf("%w: %w", repo.ErrMalformed, deb822.ErrTooLarge), verb: "sync", exit: 1, hint: "nothing was changed; only upstream can repair its metadata"},
	{sentinel: "repo/rpm/rpmmd.ErrSyntax", err: fmt.Errorf("%w: %w", repo.ErrMalformed, rpmmd.ErrSyntax), verb: "sync", exit: 1, hint: "nothing was changed; only upstream can repair its metadata"},
	{sentinel: "repo/rpm/rpmmd.ErrTooLarge", err: fmt.Errorf("%w: %w", repo.ErrMalformed, rpmmd.ErrTooLarge), verb: "sync", exit: 1, hint: "nothing was changed; only upstream can repair its metadata"},
	{sentinel: "repo/rpm/rpmmd.ErrTreeinfo", err: fmt.Errorf("%w: %w", repo.ErrMalformed, rpmmd.ErrTreeinfo), verb: "sync", exit: 1, hint: "nothing was changed; only upstream can repair its metadata"},
	{sentinel: "repo/rpm/rpmmd.ErrZchunk", err: fmt.Errorf("%w: %w", repo.ErrMalformed, rpmmd.ErrZchunk), verb: "sync", exit: 1, hint: "nothing was changed; only upstream can repair its metadata"},
	{sentinel: "repo/rpm/nevra.ErrSyntax", err: fmt.Errorf("%w: %w", repo.ErrMalformed, nevra.ErrSyntax), verb: "sync", exit: 1, hint: "nothing was changed; only upstream can repair its metadata"},
	{sentinel: "repo/rpm/rpmpkg.ErrMalformed", err: fmt.Errorf("%w: %w", repo.ErrMalformed, rpmpkg.ErrMalformed), verb: "sync", exit: 1, hint: "nothing was changed; only upstream can repair its metadata"},
	{sentinel: "repo.ErrMismatch", err: repo.ErrMismatch, verb: "sync", exit: 4, hint: "nothing was changed: upstream serves another file than its index lists; try again later, or add another URL to the mirror"},
	{sentinel: "repo/rpm/rpmmd.ErrMismatch", err: fmt.Errorf("%w: %w", repo.ErrMismatch, rpmmd.ErrMismatch), verb: "sync", exit: 4, hint: "nothing was changed: upstream serves another file than its index lists; try again later, or add another URL to the mirror"},
	{sentinel: "repo/rpm/rpmpkg.ErrDigest", err: fmt.Errorf("%w: %w", repo.ErrMismatch, rpmpkg.ErrDigest), verb: "freeze", exit: 4, hint: "nothing was changed: upstream serves another file than its index lists; try again later, or add another URL to the mirror"},
	{sentinel: "repo/rpm/rpmpkg.ErrDisagrees", err: fmt.Errorf("%w: %w", repo.ErrMismatch, rpmpkg.ErrDisagrees), verb: "freeze", exit: 4, hint: "nothing was changed: upstream serves another file than its index lists; try again later, or add another URL to the mirror"},
	{sentinel: "repo.ErrWeak", err: repo.ErrWeak, verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "repo/rpm/rpmmd.ErrWeak", err: fmt.Errorf("%w: %w", repo.ErrWeak, rpmmd.ErrWeak), verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "repo.ErrHostile", err: repo.ErrHostile, verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "repo/rpm/rpmmd.ErrHostile", err: fmt.Errorf("%w: %w", repo.ErrHostile, rpmmd.ErrHostile), verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "repo/rpm/rpmmd.ErrAddress", err: fmt.Errorf("%w: %w", repo.ErrHostile, rpmmd.ErrAddress), verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "repo.ErrMissing", err: repo.ErrMissing, verb: "sync", exit: 1, hint: "nothing was changed: upstream lacks files that it lists, or suites, components or architectures that the mirror is configured with; show the mirror with: snapctl mirror show debian"},
	{sentinel: "repo.ErrTorn", err: repo.ErrTorn, verb: "sync", exit: 1, hint: "upstream is being updated: try again later"},
	{sentinel: "repo.ErrUntrusted", err: repo.ErrUntrusted, verb: "sync", exit: 4, hint: "nothing was changed; see how the mirror is verified with: snapctl mirror show debian"},
	{sentinel: "repo/rpm.ErrLagging", err: fmt.Errorf("%w: %w", rpm.ErrLagging, repo.ErrUntrusted), verb: "sync", exit: 4, hint: "nothing was changed; see how the mirror is verified with: snapctl mirror show debian"},
	{sentinel: "repo.ErrNotModified", err: repo.ErrNotModified, verb: "sync", exit: 1, hint: "see snapd's log for details"}, // never leaves mirror
	{sentinel: "sign.ErrBadSignature", err: sign.ErrBadSignature, verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "sign.ErrUnknownKey", err: sign.ErrUnknownKey, verb: "sync", exit: 4, hint: "nothing was changed; compare the key with the mirror's keyring: snapctl mirror show debian"},
	{sentinel: "sign.ErrExpired", err: sign.ErrExpired, verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "sign.ErrRevoked", err: sign.ErrRevoked, verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "sign.ErrWeak", err: sign.ErrWeak, verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "sign.ErrNoSignature", err: sign.ErrNoSignature, verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "sign.ErrMalformed", err: sign.ErrMalformed, verb: "sync", exit: 4, hint: "nothing was changed; earlier snapshots are still served"},
	{sentinel: "sign.ErrUnknownKey", err: sign.ErrUnknownKey, local: true, verb: "verify", exit: 4},
	{sentinel: "mirror.ErrLocal", err: mirror.ErrLocal, verb: "sync", exit: 2, hint: "add packages with: snapctl add debian FILE"},
	// Adding and removing packages.
	{sentinel: "mirror.ErrNotLocal", err: mirror.ErrNotLocal, verb: "add", exit: 2, hint: "configure a mirror for your own packages with local = true"},
	{sentinel: "mirror.ErrNoPackage", err: mirror.ErrNoPackage, verb: "remove", exit: 1, hint: "list what the mirror has with: snapctl packages debian@latest"},
	{sentinel: "repo.ErrNotPackage", err: repo.ErrNotPackage, verb: "add", exit: 1},
	{sentinel: "repo.ErrOtherBytes", err: repo.ErrOtherBytes, verb: "add", exit: 1, hint: "a version never changes: build the package again with a higher version"},
	{sentinel: "repo.ErrMalformed", err: repo.ErrMalformed, verb: "add", exit: 1, hint: "nothing was added: copy the file again, or build it again"},
	{sentinel: "repo.ErrMismatch", err: repo.ErrMismatch, verb: "add", exit: 4, hint: "nothing was added"},
	{sentinel: "repo.ErrUntrusted", err: repo.ErrUntrusted, verb: "add", exit: 4, hint: "nothing was added"},
	{sentinel: "config.ErrUnknownMirror", err: config.ErrUnknownMirror, verb: "add", exit: 1, hint: "snapctl mirror list"},
	{sentinel: "config.ErrUnknownMirror", err: config.ErrUnknownMirror, verb: "freeze", exit: 1, hint: "snapctl mirror list"},
	{sentinel: "config.ErrUnknownMirror", err: config.ErrUnknownMirror, verb: "record start", exit: 1, hint: "snapctl mirror list"},
	{sentinel: "config.ErrUnknownMirror", err: config.ErrUnknownMirror, verb: "show", exit: 1, hint: "snapctl mirror list"},
	{sentinel: "config.ErrUnknownMirror", err: config.ErrUnknownMirror, verb: "remove", exit: 1, hint: "snapctl mirror list"},
	{sentinel: "fetch.ErrNotFound", err: fetch.ErrNotFound, verb: "sync", exit: 1, hint: "nothing was changed: upstream lacks files that it lists, or suites, components or architectures that the mirror is configured with; show the mirror with: snapctl mirror show debian"},
	{sentinel: "fetch.ErrDenied", err: fetch.ErrDenied, verb: "sync", exit: 1, hint: "if upstream requires a login, give the mirror an auth_file; otherwise check its url, suites and components"},
	{sentinel: "fetch.ErrUnavailable", err: fetch.ErrUnavailable, verb: "sync", exit: 1, hint: "upstream cannot be reached: try again later"},
	{sentinel: "fetch.ErrCertificate", err: fetch.ErrCertificate, verb: "sync", exit: 1, hint: "check the mirror's url; if a certificate authority of your own signed the certificate, name its file in the mirror's ca_file"},
	{sentinel: "fetch.ErrLocal", err: fetch.ErrLocal, verb: "sync", exit: 1, hint: "check that the directory of the mirror's file: URL exists and that the user that runs snapd may read it"},
	{sentinel: "fetch.ErrMismatch", err: fetch.ErrMismatch, verb: "freeze", exit: 4, hint: "nothing was changed: upstream serves another file than its index lists; try again later, or add another URL to the mirror"},
	{sentinel: "fetch.ErrTooLarge", err: fetch.ErrTooLarge, verb: "sync", exit: 1},
	{sentinel: "fetch.ErrNotRepository", err: fetch.ErrNotRepository, verb: "sync", exit: 1, hint: "check the mirror's url: it leads to a web page"},
	{sentinel: "fetch.ErrRefused", err: fetch.ErrRefused, verb: "sync", exit: 1},
	{sentinel: "mirror.ErrClock", err: mirror.ErrClock, verb: "sync", exit: 1, hint: "set the system clock and sync again; if the clock is right, run: snapctl sync debian --accept-clock"},
	{sentinel: "acquire.ErrNoSpace", err: acquire.ErrNoSpace, verb: "sync", exit: 1, hint: "see what can be removed with: snapctl gc --dry-run"},
	{sentinel: "config.ErrUnknownMirror", err: config.ErrUnknownMirror, verb: "sync", exit: 1, hint: "snapctl mirror list"},

	// The store.
	{sentinel: "acquire.ErrCorruptBlob", err: acquire.ErrCorruptBlob, verb: "freeze", exit: 4, hint: "look for damaged blobs and download them again with: snapctl fsck --repair"},
	{sentinel: "cas.ErrCorrupt", err: cas.ErrCorrupt, verb: "export", exit: 4, hint: "look for damaged blobs and download them again with: snapctl fsck --repair"},
	{sentinel: "cas.ErrMismatch", err: cas.ErrMismatch, verb: "import", exit: 4, hint: "nothing was imported; list the faults with: snapctl verify debian"},
	{sentinel: "indices.ErrOrder", err: indices.ErrOrder, verb: "freeze", exit: 4, hint: ""},
	{sentinel: "indices.ErrRecipe", err: indices.ErrRecipe, verb: "freeze", exit: 1, hint: "install the version of the program that it names on the server"},
	{sentinel: "indices.ErrBeingMade", err: indices.ErrBeingMade, verb: "freeze", exit: 1, hint: "try again later"},
	{sentinel: "cas.ErrNotFound", err: cas.ErrNotFound, verb: "export", exit: 1, hint: "get missing blobs again with: snapctl fsck --repair"},
	{sentinel: "cas.ErrInUse", err: cas.ErrInUse, verb: "rm", exit: 1, hint: "see what uses it with: snapctl show debian"},
	{sentinel: "cas.ErrUnavailable", err: cas.ErrUnavailable, verb: "freeze", exit: 1, hint: "the blob store did not answer: try again later"},
	{sentinel: "cas/s3.ErrRefused", err: s3.ErrRefused, verb: "freeze", exit: 1, hint: "see snapd's log for details"},
	{sentinel: "meta.ErrUnreachable", err: meta.ErrUnreachable, verb: "freeze", exit: 1, hint: "the database of the metadata did not answer: try again later"},
	{sentinel: "meta.ErrNotFound", err: meta.ErrNotFound, verb: "show", exit: 1, hint: "snapctl list"},
	{sentinel: "meta.ErrExists", err: meta.ErrExists, verb: "freeze", exit: 1, hint: "a freeze never changes: choose another name, or look at the existing one with: snapctl show debian"},
	{sentinel: "meta.ErrLocked", err: meta.ErrLocked, verb: "gc", exit: 1, hint: "another program has the data directory open: stop it"},
	{sentinel: "meta.ErrTaken", err: meta.ErrTaken, verb: "record start", exit: 1, hint: "choose another name; see what uses this one with: snapctl record list, snapctl list --frozen"},
	{sentinel: "meta.ErrInUse", err: meta.ErrInUse, verb: "rm", exit: 1, hint: "see what uses it with: snapctl show debian"},
	{sentinel: "control.ErrServes", err: control.ErrServes, verb: "sync", exit: 2, hint: "ask a node whose role is \"all\""},
	{sentinel: "sign.ErrNoPrivateKey", err: sign.ErrNoPrivateKey, verb: "freeze", exit: 1},
	{sentinel: "tlog.ErrNoPrivateKey", err: tlog.ErrNoPrivateKey, verb: "freeze", exit: 1},
	{sentinel: "meta.ErrLeased", err: meta.ErrLeased, verb: "sync", exit: 1, hint: "another node of this installation is the leader: try again later"},
	{sentinel: "meta.ErrFenced", err: meta.ErrFenced, verb: "sync", exit: 1, hint: "another node of this installation is the leader: try again later"},
	{sentinel: "meta.ErrGone", err: meta.ErrGone, verb: "channel show", exit: 1, hint: "snapctl channel list"},
	{sentinel: "meta.ErrGone", err: meta.ErrGone, verb: "show", exit: 1, hint: "list the snapshots that still exist with: snapctl list"},
	{sentinel: "meta.ErrCorrupt", err: meta.ErrCorrupt, verb: "list", exit: 1, hint: "rebuild what can be rebuilt with: snapctl fsck --repair; if faults remain, restore a backup with: snapd restore DIR (docs/OPERATE.md, \"When meta.db is lost or damaged\")"},
	{sentinel: "meta.ErrLost", err: meta.ErrLost, verb: "list", exit: 1, hint: "see snapd's log for details"},       // snapd does not start
	{sentinel: "meta.ErrVersion", err: meta.ErrVersion, verb: "list", exit: 1, hint: "see snapd's log for details"}, // likewise
	{sentinel: "durable.ErrUnknown", err: durable.ErrUnknown, verb: "freeze", exit: 1, hint: "see snapd's log for details"},

	// Freezes, references and recordings.
	{sentinel: "freeze.ErrExists", err: freeze.ErrExists, verb: "import", exit: 1, hint: "snapctl list"},
	{sentinel: "freeze.ErrMissing", err: freeze.ErrMissing, verb: "freeze", exit: 1, hint: "list all entries with --dry-run; import an older state that has them with snapctl sync M --from-url URL --as T, record them as missing with --allow-missing, or leave out source packages with --no-sources"},
	{sentinel: "freeze.ErrAmbiguous", err: freeze.ErrAmbiguous, verb: "freeze", exit: 1, hint: "choose the snapshots with --mirror MIRROR@TIME, or list every candidate with --dry-run"},
	{sentinel: "freeze.ErrTwoContents", err: freeze.ErrTwoContents, verb: "freeze", exit: 1},
	{sentinel: "freeze.ErrBroken", err: freeze.ErrBroken, verb: "freeze", exit: 1, hint: "add what is missing with --replace, or freeze it as it is with --allow-broken"},
	{sentinel: "freeze.ErrNeedsAll", err: freeze.ErrNeedsAll, verb: "freeze", exit: 1, hint: "download them all with --all, or freeze fewer packages with --manifest or --package"},
	{sentinel: "freeze.ErrVerify", err: freeze.ErrVerify, verb: "import", exit: 4, hint: "nothing was imported; list the faults with: snapctl verify debian"},
	{sentinel: "freeze.ErrVerify", err: freeze.ErrVerify, verb: "export", exit: 4},
	{sentinel: "freeze.ErrEmpty", err: freeze.ErrEmpty, verb: "freeze", exit: 1, hint: "freeze it anyway with --allow-empty"},
	{sentinel: "freeze.ErrRunning", err: freeze.ErrRunning, verb: "freeze", exit: 1, hint: "stop the recording when the build is done: snapctl record stop"},
	{sentinel: "freeze.ErrLacks", err: freeze.ErrLacks, verb: "channel set", exit: 1, hint: "freeze the missing parts too, or move the channel anyway with --allow-missing"},
	{sentinel: "freeze.ErrInfoChange", err: freeze.ErrInfoChange, verb: "channel set", exit: 1, hint: "--allow-info-change moves the channel anyway; each client then needs once: apt-get update --allow-releaseinfo-change"},
	{sentinel: "freeze.ErrBusy", err: freeze.ErrBusy, verb: "channel set", exit: 1, hint: "wait until the other one has finished: snapctl channel show debian"},
	{sentinel: "mirror.ErrClock", err: mirror.ErrClock, verb: "channel set", exit: 1, hint: "wait until that time, or set the system clock if it is wrong"},
	{sentinel: "meta.ErrTaken", err: meta.ErrTaken, verb: "channel set", exit: 1, hint: "choose another name; see what uses this one with: snapctl record list, snapctl list --frozen"},
	{sentinel: "meta.ErrNotFound", err: meta.ErrNotFound, verb: "channel show", exit: 1, hint: "snapctl channel list"},
	{sentinel: "meta.ErrNotFound", err: meta.ErrNotFound, verb: "channel set", exit: 1, hint: "snapctl list --frozen"},
	{sentinel: "freeze.ErrBusy", err: freeze.ErrBusy, verb: "freeze", exit: 1, hint: "wait until the other one has finished: snapctl show debian"},
	{sentinel: "freeze.ErrUsage", err: freeze.ErrUsage, verb: "freeze", exit: 2, hint: "snapctl help freeze"},
	{sentinel: "freeze.ErrFormat", err: fmt.Errorf("%w: %w", freeze.ErrVerify, freeze.ErrFormat), verb: "import", exit: 4, hint: "nothing was imported; list the faults with: snapctl verify debian"},
	{sentinel: "freeze/lockfile.ErrInvalid", err: fmt.Errorf("%w: %w", freeze.ErrUsage, lockfile.ErrInvalid), verb: "sources", exit: 2, hint: "snapctl help sources"},
	{sentinel: "freeze/sbom.ErrInvalid", err: fmt.Errorf("%w: %w", buildlist.ErrMalformed, sbom.ErrInvalid), verb: "freeze", exit: 1},
	{sentinel: "control.ErrNoPackage", err: control.ErrNoPackage, verb: "show", exit: 1, hint: "list what it has with: snapctl packages debian"},
	{sentinel: "control.ErrVersions", err: control.ErrVersions, verb: "show", exit: 1, hint: "choose one with PACKAGE=VERSION, or an architecture with PACKAGE:ARCH"},
	{sentinel: "catalog.ErrRef", err: catalog.ErrRef, verb: "show", exit: 2, hint: "list snapshots and freezes with: snapctl list"},
	{sentinel: "catalog.ErrNoSnapshot", err: catalog.ErrNoSnapshot, verb: "freeze", exit: 1, hint: "choose the mirrors with --mirror, or take their first snapshots with: snapctl sync"},
	{sentinel: "catalog.ErrNameTaken", err: catalog.ErrNameTaken, verb: "record start", exit: 2, hint: "choose another name"},
	{sentinel: "catalog.ErrStopped", err: catalog.ErrStopped, verb: "sources", exit: 1, hint: "start another recording with: snapctl record start"},
	{sentinel: "catalog.ErrNoUpstreamIndices", err: catalog.ErrNoUpstreamIndices, verb: "sources", exit: 1},
	{sentinel: "control.ErrOtherServer", err: control.ErrOtherServer, verb: "record start", exit: 1},
	{sentinel: "query.ErrSyntax", err: query.ErrSyntax, verb: "packages", exit: 2, hint: "read what a query may contain with: snapctl help packages"},
	{sentinel: "buildlist.ErrMalformed", err: buildlist.ErrMalformed, verb: "freeze", exit: 1},
	{sentinel: "purl.ErrMalformed", err: fmt.Errorf("%w: %w", buildlist.ErrMalformed, purl.ErrMalformed), verb: "freeze", exit: 1},
	{sentinel: "buildlist.ErrUnrecognised", err: buildlist.ErrUnrecognised, verb: "freeze", exit: 2, hint: "choose the format with --format; list the formats with: snapctl help freeze"},
	{sentinel: "buildlist.ErrAmbiguous", err: buildlist.ErrAmbiguous, verb: "freeze", exit: 2, hint: "choose the format with --format; list the formats with: snapctl help freeze"},
	{sentinel: "buildlist.ErrEmpty", err: buildlist.ErrEmpty, verb: "freeze", exit: 2, hint: "check that this is the right file"},
	{sentinel: "buildlist.ErrTooLarge", err: buildlist.ErrTooLarge, verb: "freeze", exit: 1, hint: "check that this is the right file"},
	{sentinel: "regfile.ErrNotRegular", err: regfile.ErrNotRegular, verb: "import", exit: 1, hint: "expected a regular file: copy the content into one"},
	{sentinel: "regfile.ErrTooLarge", err: regfile.ErrTooLarge, verb: "import", exit: 1, hint: "check that this is the right file"},
	{sentinel: "fs.ErrPermission", err: fs.ErrPermission, verb: "import", exit: 1, hint: "the user that runs snapd needs access to it"},

	// Attestations.
	{sentinel: "attest.ErrMalformed", err: attest.ErrMalformed, verb: "attest import", exit: 1, hint: "expected what snapctl attest --output FILE writes: a DSSE envelope with an in-toto statement"},
	{sentinel: "attest.ErrMalformed", err: attest.ErrMalformed, local: true, verb: "attest import", exit: 1, hint: "expected what snapctl attest --output FILE writes: a DSSE envelope with an in-toto statement"},
	{sentinel: "attest.ErrOther", err: attest.ErrOther, verb: "attest import", exit: 4, hint: "nothing was kept: the attestation is about another freeze than the one with this name on this server"},
	{sentinel: "attest.ErrOther", err: attest.ErrOther, local: true, verb: "attest", exit: 4},
	{sentinel: "attest.ErrBuilders", err: attest.ErrBuilders, verb: "verify", exit: 2, hint: "expected a line \"builder ...\" for each builder, with its public keys below (docs/ATTEST.md)"},
	{sentinel: "attest.ErrRebuilders", err: attest.ErrRebuilders, verb: "verify", exit: 2, hint: "expected a line \"rebuilder ...\" for each rebuilder, with its public keys below (docs/ATTEST.md)"},
	{sentinel: "attest.ErrRebuilders", err: attest.ErrRebuilders, local: true, verb: "attest fetch", exit: 2, hint: "expected a line \"rebuilder ...\" for each rebuilder, with its public keys below (docs/ATTEST.md)"},
	{sentinel: "attest.ErrBuilders", err: attest.ErrBuilders, local: true, verb: "verify", exit: 2, hint: "expected a line \"builder ...\" for each builder, with its public keys below (docs/ATTEST.md)"},
	{sentinel: "freeze.ErrFull", err: freeze.ErrFull, verb: "attest", exit: 1},
	{sentinel: "meta.ErrNotFound", err: meta.ErrNotFound, verb: "attest import", exit: 1, hint: "import the freeze that it is about first: snapctl import DIR"},
	{sentinel: "meta.ErrNotFound", err: meta.ErrNotFound, verb: "attest rm", exit: 1, hint: "list what is kept with: snapctl attest list debian"},
	{sentinel: "meta.ErrNotFound", err: meta.ErrNotFound, verb: "attest", exit: 1, hint: "snapctl list --frozen, snapctl image list"},

	// The transparency log.
	{sentinel: "tlog.ErrProof", err: tlog.ErrProof, verb: "log verify", exit: 4},
	{sentinel: "tlog.ErrRewritten", err: tlog.ErrRewritten, verb: "log verify", exit: 4},
	{sentinel: "tlog.ErrPolicy", err: tlog.ErrPolicy, verb: "verify", exit: 2, hint: "check that this is the right file"},
	{sentinel: "tlog.ErrKey", err: tlog.ErrKey, verb: "verify", exit: 2, hint: "check that this is the right file"},
	{sentinel: "tlog.ErrLeaf", err: fmt.Errorf("%w: %w", tlog.ErrProof, tlog.ErrLeaf), verb: "log verify", exit: 4},
	{sentinel: "tlog/sequencer.ErrNamed", err: sequencer.ErrNamed, verb: "freeze", exit: 1, hint: "choose another name"},
	{sentinel: "tlog/sequencer.ErrBehind", err: sequencer.ErrBehind, verb: "freeze", exit: 4},
	{sentinel: "tlog/sequencer.ErrOrigin", err: sequencer.ErrOrigin, verb: "log show", exit: 2},
	{sentinel: "tlog/witness.ErrForked", err: fmt.Errorf("%w: %w", sequencer.ErrBehind, witness.ErrForked), verb: "freeze", exit: 4},
	{sentinel: "meta.ErrLogMoved", err: meta.ErrLogMoved, verb: "freeze", exit: 1, hint: "run the command again"},

	// Access over the network.
	{sentinel: "control.ErrToken", err: control.ErrToken, verb: "list", exit: 1, hint: "ask an administrator of the server for a token"},
	{sentinel: "control.ErrForbidden", err: control.ErrForbidden, verb: "list", exit: 1},
	{sentinel: "control.ErrManyTokens", err: control.ErrManyTokens, verb: "list", exit: 1, hint: "try again in a minute, with another token"},
	{sentinel: "freeze/stream.ErrFormat", err: stream.ErrFormat, verb: "import", exit: 1, hint: "expected what snapctl export REF - writes"},
	{sentinel: "freeze/stream.ErrSums", err: stream.ErrSums, local: true, verb: "import", exit: 4, hint: "nothing was changed: the files at this URL are not those that were exported; export them again"},
	{sentinel: "fetch.ErrMismatch", err: fetch.ErrMismatch, local: true, verb: "import", exit: 4, hint: "nothing was changed: the files at this URL are not those that were exported; export them again"},
	{sentinel: "fetch.ErrCertificate", err: fetch.ErrCertificate, local: true, verb: "verify", exit: 1, hint: "the certificate must be trusted here ($SSL_CERT_FILE names further authorities)"},
	{sentinel: "control.ErrBody", err: control.ErrBody, verb: "image add", exit: 1, hint: "send less at once; files are bounded by max_upload in [api] of the server"},
	{sentinel: "control.ErrKeyReused", err: control.ErrKeyReused, verb: "freeze", exit: 2},
	{sentinel: "webhook.ErrUnknown", err: webhook.ErrUnknown, verb: "webhook log", exit: 1, hint: "snapctl webhook list"},
	{sentinel: "webhook.ErrNotDelivered", err: webhook.ErrNotDelivered, verb: "webhook test", exit: 1},
	{sentinel: "webhook/signature.ErrSecret", err: fmt.Errorf("%w: %w", config.ErrInvalid, signature.ErrSecret), verb: "mirror add", exit: 1},
	{sentinel: "meta.ErrNotFound", err: meta.NoDelivery("ci.example.org", "x"), verb: "webhook redeliver", exit: 1, hint: "find the id of the event with: snapctl webhook log"},
	{sentinel: "meta.ErrRevoked", err: meta.ErrRevoked, verb: "token revoke", exit: 1},
	{sentinel: "meta.ErrTaken", err: meta.ErrTaken, verb: "token create", exit: 1, hint: "end it with: snapctl token revoke debian"},
	{sentinel: "client.ErrNoServer", err: client.ErrNoServer, local: true, verb: "list", exit: 1, hint: "check the URL of --server: it is that of [api] in the server's configuration, and its certificate must be trusted here ($SSL_CERT_FILE names further authorities)"},
	{sentinel: "client.ErrClearToken", err: client.ErrClearToken, local: true, verb: "list", exit: 1},
	{sentinel: "client.ErrRedirected", err: client.ErrRedirected, local: true, verb: "list", exit: 1},

	// Errors that snapctl finds itself.
	{sentinel: "regfile.ErrNotRegular", err: regfile.ErrNotRegular, local: true, verb: "iuk verify", exit: 1, hint: "expected a regular file: copy the content into one"},
	{sentinel: "fs.ErrPermission", err: fs.ErrPermission, local: true, verb: "iuk verify", exit: 1},
	{sentinel: "client.ErrNoDaemon", err: client.ErrNoDaemon, local: true, verb: "list", exit: 1, hint: "start snapd with: snapd --config config.toml (snapctl init --from-apt writes one), or give its socket with --socket"},
	{sentinel: "client.ErrNoDaemon", err: fmt.Errorf("%w: %w", client.ErrNoDaemon, fs.ErrPermission), local: true, verb: "list", exit: 1, hint: "only root, the user that runs snapd and the members of its socket_group may do this"},
	{sentinel: "client.ErrTruncated", err: client.ErrTruncated, local: true, verb: "list", exit: 1},
	{sentinel: "config.ErrNotEditable", err: config.ErrNotEditable, local: true, verb: "mirror set", exit: 1, hint: "edit the file by hand, then run: systemctl reload frozen-snapd"},
	{sentinel: "config.ErrInvalid", err: config.ErrInvalid, local: true, verb: "key show", exit: 1, hint: "see config.example.toml for every key"},
	{sentinel: "yumconf.ErrSyntax", err: yumconf.ErrSyntax, local: true, verb: "init", exit: 1},
	{sentinel: "fetch/remote.ErrNoEntry", err: remote.ErrNoEntry, local: true, verb: "init", exit: 1},
	{sentinel: "sign.ErrKeyFile", err: sign.ErrKeyFile, local: true, verb: "key show", exit: 1},
	{sentinel: "sign.ErrKeyMode", err: sign.ErrKeyMode, local: true, verb: "key show", exit: 1, hint: "only its owner may read a signing key: chmod 600 the file"},
	{sentinel: "image.ErrSpec", err: image.ErrSpec, local: true, verb: "image build", exit: 1},
	{sentinel: "image.ErrSpec", err: image.ErrSpec, local: true, verb: "rebuild", exit: 1, hint: "snapd can only rebuild images that it built: snapctl image build debian"},
	{sentinel: "image.ErrTools", err: fmt.Errorf("%w: %w", image.ErrTools, exec.ErrNotFound), local: true, verb: "image build", exit: 1, hint: "apt-get install mmdebstrap"},
	{sentinel: "image.ErrTools", err: image.ErrTools, local: true, verb: "image build", exit: 1},
	{sentinel: "image.ErrBuild", err: image.ErrBuild, local: true, verb: "image build", exit: 1},
	{sentinel: "buildenv.ErrNamespaces", err: buildenv.ErrNamespaces, local: true, verb: "run", exit: 1, hint: "see what the machine needs in docs/BUILD.md"},
	{sentinel: "buildenv.ErrIDs", err: buildenv.ErrIDs, local: true, verb: "run", exit: 1, hint: "give the user subordinate IDs, as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"},
	{sentinel: "buildenv.ErrMapTool", err: fmt.Errorf("%w: %w", buildenv.ErrMapTool, exec.ErrNotFound), local: true, verb: "run", exit: 1, hint: "apt-get install uidmap"},
	{sentinel: "buildenv.ErrRPMTools", err: fmt.Errorf("%w: %w", buildenv.ErrRPMTools, exec.ErrNotFound), local: true, verb: "run", exit: 1, hint: "apt-get install dnf rpm"},
	{sentinel: "buildenv.ErrInstall", err: buildenv.ErrInstall, local: true, verb: "run", exit: 1},
	{sentinel: "buildenv.ErrSetup", err: buildenv.ErrSetup, local: true, verb: "run", exit: 1},
	{sentinel: "buildenv.ErrOutput", err: buildenv.ErrOutput, local: true, verb: "run", exit: 1},
	{sentinel: "image.ErrLacks", err: image.ErrLacks, local: true, verb: "image build", exit: 1, hint: "check that the freeze contains what the variant needs: snapctl packages debian"},
	{sentinel: "compare.ErrFormats", err: compare.ErrFormats, local: true, verb: "compare", exit: 2, hint: "compare two images, two packages, two archives or two directories"},
	{sentinel: "compare.ErrNoPath", err: compare.ErrNoPath, local: true, verb: "compare", exit: 2, hint: "leave out --explain to list the paths that differ"},
	{sentinel: "compare.ErrExpected", err: compare.ErrExpected, local: true, verb: "compare", exit: 2, hint: "each line is a glob and a code of docs/COMPARE.md, such as: /etc/machine-id random-id"},
	{sentinel: "compare.ErrCorrupt", err: compare.ErrCorrupt, local: true, verb: "compare", exit: 1, hint: "the file is damaged: copy it again, or build it again"},
	{sentinel: "compare.ErrLimit", err: compare.ErrLimit, local: true, verb: "compare", exit: 1},
	{sentinel: "iso9660.ErrFormat", err: fmt.Errorf("%w: %w", iuk.ErrInput, iso9660.ErrFormat), local: true, verb: "iuk create", exit: 1, hint: "an image is a SquashFS file, or an ISO that contains one"},
	{sentinel: "iso9660.ErrCorrupt", err: fmt.Errorf("%w: %w", iuk.ErrInput, iso9660.ErrCorrupt), local: true, verb: "iuk create", exit: 1, hint: "the image is damaged: copy it again, or build it again"},
	{sentinel: "iso9660.ErrUnsupported", err: fmt.Errorf("%w: %w", iuk.ErrInput, iso9660.ErrUnsupported), local: true, verb: "iuk create", exit: 1},
	{sentinel: "squashfs.ErrCorrupt", err: fmt.Errorf("%w: %w", iuk.ErrInput, squashfs.ErrCorrupt), local: true, verb: "iuk create", exit: 1, hint: "the image is damaged: copy it again, or build it again"},
	{sentinel: "squashfs.ErrNotSquashfs", err: fmt.Errorf("%w: %w", iuk.ErrInput, squashfs.ErrNotSquashfs), local: true, verb: "iuk create", exit: 1, hint: "an image is a SquashFS file, or an ISO that contains one"},
	{sentinel: "squashfs.ErrUnsupported", err: fmt.Errorf("%w: %w", iuk.ErrInput, squashfs.ErrUnsupported), local: true, verb: "iuk create", exit: 1},
	{sentinel: "squashfs.ErrLimit", err: fmt.Errorf("%w: %w", iuk.ErrInput, squashfs.ErrLimit), local: true, verb: "iuk create", exit: 1},
	{sentinel: "squashfs.ErrCorrupt", err: squashfs.ErrCorrupt, local: true, verb: "iuk inspect", exit: 4, hint: "the file is damaged: download it again, or create it again with: snapctl iuk create"},
	{sentinel: "iuk.ErrInput", err: iuk.ErrInput, local: true, verb: "iuk create", exit: 1},
	{sentinel: "iuk.ErrInput", err: fmt.Errorf("%w: %w", iuk.ErrInput, fs.ErrNotExist), local: true, verb: "iuk create", exit: 1, hint: "an image is a SquashFS file, or an ISO that contains one"},
	{sentinel: "iuk.ErrKit", err: iuk.ErrKit, local: true, verb: "iuk inspect", exit: 4, hint: "the file is damaged or not a kit: download it again, or create it again with: snapctl iuk create"},
	{sentinel: "iuk.ErrTarget", err: fmt.Errorf("%w: %w", fs.ErrNotExist, iuk.ErrTarget), local: true, verb: "iuk apply", exit: 1, hint: "--target is the mount point of the system partition"},
	{sentinel: "iuk.ErrTarget", err: iuk.ErrTarget, local: true, verb: "iuk apply", exit: 1},
	{sentinel: "iuk.ErrWrongBase", err: iuk.ErrWrongBase, local: true, verb: "iuk apply", exit: 4, hint: "use the kit made for this base; see which one a kit is for with: snapctl iuk inspect debian"},
	{sentinel: "iuk.ErrNoSpace", err: iuk.ErrNoSpace, local: true, verb: "iuk apply", exit: 1, hint: "free space on the target and run the command again"},
	{sentinel: "iuk.ErrReadOnly", err: iuk.ErrReadOnly, local: true, verb: "iuk apply", exit: 1, hint: "mount the target read-write and run the command again"},
	{sentinel: "iuk.ErrBusy", err: iuk.ErrBusy, local: true, verb: "iuk apply", exit: 1, hint: "wait until the other one has finished"},
	{sentinel: "iuk.ErrUnfinished", err: iuk.ErrUnfinished, local: true, verb: "iuk apply", exit: 1, hint: "complete it by running the command again, or restore the old state with --rollback"},
	{sentinel: "iuk.ErrNoUpgrade", err: iuk.ErrNoUpgrade, local: true, verb: "iuk apply", exit: 1, hint: "nothing to undo; install a kit with: snapctl iuk apply FILE --target DIR"},
	{sentinel: "iuk.ErrJournal", err: iuk.ErrJournal, local: true, verb: "iuk apply", exit: 1},
	{sentinel: "iuk.ErrUDF", err: iuk.ErrUDF, local: true, verb: "iuk udf", exit: 1},
	{sentinel: "iuk.ErrOtherUDF", err: iuk.ErrOtherUDF, local: true, verb: "iuk udf", exit: 1, hint: "choose an empty directory with --output"},
	{sentinel: "iuk.ErrOtherVersions", err: iuk.ErrOtherVersions, local: true, verb: "iuk udf", exit: 4, hint: "rename the file to match its contents; see its versions with: snapctl iuk inspect FILE"},
	{sentinel: "iuk.ErrBase", err: iuk.ErrBase, local: true, verb: "iuk create", exit: 4, hint: "remove the attribute with setfattr -x ATTRIBUTE FILE and pack the image again"},
	{sentinel: "iuk.ErrFAT", err: iuk.ErrFAT, local: true, verb: "iuk create", exit: 1, hint: "the system partition is FAT32: rename the file in the image, or choose another --to-version"},
	{sentinel: "iuk.ErrNotNew", err: iuk.ErrNotNew, local: true, verb: "iuk verify", exit: 4, hint: "create the kit again from these two images: snapctl iuk create"},
	{sentinel: "lzma.ErrCorrupt", err: fmt.Errorf("%w: %w: %w", iuk.ErrInput, squashfs.ErrCorrupt, lzma.ErrCorrupt), local: true, verb: "iuk create", exit: 1, hint: "the image is damaged: copy it again, or build it again"},
	{sentinel: "lzma.ErrTooLong", err: fmt.Errorf("%w: %w: %w", iuk.ErrInput, squashfs.ErrCorrupt, lzma.ErrTooLong), local: true, verb: "iuk create", exit: 1, hint: "the image is damaged: copy it again, or build it again"},
	{sentinel: "lzma.ErrUnsupported", err: fmt.Errorf("%w: %w: %w", iuk.ErrInput, squashfs.ErrUnsupported, lzma.ErrUnsupported), local: true, verb: "iuk create", exit: 1},
	{sentinel: "lzma.ErrMemory", err: fmt.Errorf("%w: %w: %w", iuk.ErrInput, squashfs.ErrLimit, lzma.ErrMemory), local: true, verb: "iuk create", exit: 1},
	{sentinel: "lzma.ErrOptions", err: lzma.ErrOptions, local: true, verb: "iuk create", exit: 1},
}

func TestHints(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range hintCases {
		seen[c.sentinel] = true
		err := fmt.Errorf("do something: %w", c.err)
		if !c.local { // as it arrives from snapd
			e, _ := control.Error(err)
			data, jerr := json.Marshal(e)
			if jerr != nil {
				t.Fatal(jerr)
			}
			var got api.Error
			if jerr := json.Unmarshal(data, &got); jerr != nil {
				t.Fatal(jerr)
			}
			err = &got
		}
		exit, hint := explainCall(err, c.verb, []string{"debian"})
		if exit != c.exit || hint != c.hint {
			t.Errorf("%s, %s: %v:\nexit %d, hint %q,\nexpected %d, %q", c.sentinel, c.verb, c.err, exit, hint, c.exit, c.hint)
		}
	}
	sentinels := errclasstest.Sentinels(t, "../..")
	if len(sentinels) < 100 {
		t.Errorf("found only %d sentinels", len(sentinels))
	}
	for _, s := range sentinels {
		switch {
		case strings.HasPrefix(s, "backup."), strings.HasPrefix(s, "daemon."), strings.HasPrefix(s, "migrate."): // printed by snapd itself: see cmd/snapd
		case !seen[s]:
			t.Errorf("%s has no row: say with which hint users meet it", s)
		}
	}
	for s := range seen {
		if s != "fs.ErrPermission" && !slices.Contains(sentinels, s) {
			t.Errorf("%s is no sentinel", s)
		}
	}
}
