package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/errclass"
)

// A route is one verb of the control API: what it does, who may ask for it, and
// what it changes.
type route struct {
	about string // one line, for the description of the API
	role  string // the least role that a token needs; "": the control socket only
	op

	// touch returns what a request changes, for the scope of tokens and the audit
	// list; nil where it changes nothing. A route without touch never changes
	// anything.
	touch func(ctx context.Context, req any) (*control.Touch, error)
	// secret says that the answer contains a secret, so that it is not kept for an
	// Idempotency-Key.
	secret bool
	// limit bounds a request without its files, in bytes; 0: smallRequest.
	limit int64
}

// Bounds of a request without its files, in bytes. A request is held in memory whole, so
// only verbs that make freezes get room for the SBOMs of large systems.
const (
	smallRequest    = 1 << 20
	listRequest     = 32 << 20 // a list of installed packages, or certificates
	manifestRequest = 512 << 20
)

func withSecret(r route) route { r.secret = true; return r }

// upTo is a route for requests of more than smallRequest bytes.
func upTo(limit int64, r route) route { r.limit = limit; return r }

// op is what a verb does. Exactly one of run, take and send is set.
type op struct {
	req, res reflect.Type // of the request and of the result
	decode   func(body []byte) (any, error)

	run  func(ctx context.Context, req any, report func(api.Progress)) (any, error)
	take func(ctx context.Context, req any, next control.NextFile) (any, error) // files follow the request
	long bool                                                                   // run reports progress, or take returns a *control.Received
	task func(req any) string                                                   // object of long work; nil: Touch.What is
	send func(ctx context.Context, req any, to control.Bytes) error             // the answer is bytes
}

// routes returns all verbs by their path below /api/v1/.
func routes(c *control.Control, jobs *control.Jobs) map[string]route {
	return map[string]route{
		"status":            reads(api.RoleReader, "the state of the server", simple(c.Status)),
		"mirror/list":       reads(api.RoleReader, "all mirrors", simple(c.Mirrors)),
		"mirror/show":       reads(api.RoleReader, "one mirror", simple(c.Mirror)),
		"list":              reads(api.RoleReader, "snapshots and freezes", simple(c.List)),
		"show":              reads(api.RoleReader, "one snapshot or freeze, or a package in it", simple(c.Show)),
		"packages":          reads(api.RoleReader, "the packages of a snapshot or freeze", answers[api.PackageList](simple(c.Packages))),
		"find":              reads(api.RoleReader, "the snapshots and freezes that contain a package", simple(c.Find)),
		"diff":              reads(api.RoleReader, "the differences between two snapshots or freezes", simple(c.Diff)),
		"sources":           upTo(listRequest, reads(api.RoleReader, "the configuration of apt or dnf", simple(c.Sources))),
		"verify":            upTo(listRequest, reads(api.RoleReader, "verify a snapshot or freeze", counting(func(r *api.VerifyRequest) string { return r.Ref }, c.Verify))),
		"sbom":              reads(api.RoleReader, "a bill of materials", simple(c.SBOM)),
		"export/tar":        reads(api.RoleReader, "a freeze as a tar stream", sending(c.SendExport)),
		"image/list":        reads(api.RoleReader, "recorded images", simple(c.Images)),
		"image/get":         reads(api.RoleReader, "the bytes of an image", sending(c.SendImage)),
		"attest/list":       upTo(listRequest, reads(api.RoleReader, "attestations of the images of a freeze", simple(c.Attestations))),
		"attest/statement":  reads(api.RoleReader, "the statement that a builder is to sign", simple(c.AttestStatement)),
		"record/show":       upTo(listRequest, reads(api.RoleReader, "one recording", simple(c.Recording))),
		"record/list":       reads(api.RoleReader, "all recordings", simple(c.Recordings)),
		"channel/list":      reads(api.RoleReader, "all channels", simple(c.Channels)),
		"channel/show":      reads(api.RoleReader, "one channel", simple(c.Channel)),
		"channel/history":   reads(api.RoleReader, "the moves of a channel", simple(c.ChannelHistory)),
		"log/show":          reads(api.RoleReader, "the state of the transparency log", simple(c.LogStatus)),
		"log/verify":        reads(api.RoleReader, "verify the transparency log", simple(c.VerifyLog)),
		"log/entries":       reads(api.RoleReader, "entries of the transparency log", simple(c.LogEntries)),
		"jobs":              reads(api.RoleReader, "running jobs and jobs that ended recently", simple(byCaller(jobs.List))),
		"jobs/show":         reads(api.RoleReader, "one job with its result", simple(byCaller(jobs.Show))),
		"audit":             reads(api.RoleAdmin, "the audit list", simple(c.Audit)),
		"token/list":        reads(api.RoleAdmin, "all tokens", simple(c.ListTokens)),
		"jobs/cancel":       changes(api.RoleReader, "cancel a job of the caller's; with the role admin, any job", simple(byCaller(jobs.Cancel)), jobs.TouchCancel),
		"record/start":      changes(api.RoleBuilder, "start a recording", simple(c.StartRecording), c.TouchRecordStart),
		"record/stop":       changes(api.RoleBuilder, "stop a recording", simple(c.StopRecording), c.TouchRecord),
		"record/rm":         changes(api.RoleBuilder, "remove a recording", simple(c.RemoveRecording), c.TouchRecord),
		"attest/rebuilds":   upTo(listRequest, changes(api.RoleBuilder, "keep the results of rebuilders for packages", simple(c.AddRebuilds), c.TouchRebuilds)),
		"attest/add":        upTo(listRequest, changes(api.RoleBuilder, "keep a builder's attestation of an image", simple(c.AddAttestation), c.TouchAttest)),
		"attest/comparison": upTo(listRequest, changes(api.RoleBuilder, "keep the differences between an image and its rebuild", simple(c.AddComparison), c.TouchComparison)),
		"attest/rm":         changes(api.RoleReleaser, "remove an attestation, a list of rebuilders' results or a comparison", simple(c.RemoveAttestation), c.TouchAttestRemove),
		"freeze":            upTo(manifestRequest, changes(api.RoleReleaser, "make a freeze", counting(func(r *api.FreezeRequest) string { return r.Name }, c.Freeze), c.TouchFreeze)),
		"label":             changes(api.RoleReleaser, "change the labels and the description of a freeze", simple(c.Label), c.TouchLabel),
		"pin":               changes(api.RoleReleaser, "pin a snapshot", simple(c.Pin), c.TouchPin),
		"unpin":             changes(api.RoleReleaser, "unpin a snapshot", simple(c.Unpin), c.TouchPin),
		"add":               upTo(listRequest, changes(api.RoleReleaser, "add packages to a local mirror", taking(c.Add), c.TouchAdd)),
		"remove":            changes(api.RoleReleaser, "remove packages from a local mirror", simple(c.RemovePackages), c.TouchOwnRemove),
		"channel/set":       changes(api.RoleReleaser, "make a channel show a freeze", simple(c.SetChannel), c.TouchChannelSet),
		"import/tar":        upTo(listRequest, changes(api.RoleReleaser, "import a freeze from a tar stream", answers[api.TransferResult](lasting(taking(c.ImportTar))), c.TouchImportTar)),
		"image/add":         changes(api.RoleReleaser, "record an image", taking(c.AddImage), c.TouchImage),
		"kit/publish":       upTo(listRequest, changes(api.RoleReleaser, "publish upgrade kits", taking(c.PublishKits), c.TouchKits)),
		"sync":              changes(api.RoleAdmin, "sync mirrors", reporting(c.SyncAll), c.TouchSync),
		"rm":                changes(api.RoleAdmin, "remove a snapshot or freeze", simple(c.Remove), c.TouchRef),
		"channel/rm":        changes(api.RoleAdmin, "remove a channel", simple(c.RemoveChannel), c.TouchChannel),
		"gc":                changes(api.RoleAdmin, "collect garbage", simple(c.GC), c.TouchGC),
		"token/create":      withSecret(changes(api.RoleAdmin, "create a token", simple(c.CreateToken), c.TouchToken)),
		"token/revoke":      changes(api.RoleAdmin, "revoke a token", simple(c.RevokeToken), c.TouchTokenRef),

		// Events and their receivers.
		"webhook/list":      reads(api.RoleReader, "all webhooks", simple(c.Webhooks)),
		"webhook/log":       reads(api.RoleReader, "deliveries to webhooks", simple(c.WebhookLog)),
		"webhook/test":      changes(api.RoleAdmin, "send a test event to a webhook", simple(c.TestWebhook), c.TouchWebhook),
		"webhook/redeliver": changes(api.RoleAdmin, "deliver an event to a webhook again", simple(c.Redeliver), c.TouchRedeliver),

		// These use files and secrets of the server.
		"export":   changes("", "export a freeze to a directory of the server", counting(func(r *api.ExportRequest) string { return r.Ref }, c.Export), c.TouchExport),
		"import":   upTo(listRequest, changes("", "import a directory of the server", counting(func(r *api.ImportRequest) string { return r.Dir }, c.Import), c.TouchImport)),
		"reload":   changes("", "reload the configuration", simple(c.Reload), c.TouchReload),
		"key/show": reads("", "the signing key", simple(func(context.Context, *api.Empty) (*api.KeyInfo, error) { return c.Key(), nil })),
		"backup":   changes("", "back up the installation", counting(func(*api.BackupRequest) string { return "backup" }, c.Backup), c.TouchBackup),
		"fsck":     changes("", "check the store", counting(func(*api.FsckRequest) string { return "fsck" }, c.Fsck), c.TouchFsck),
	}
}

// reads is a route that changes nothing.
func reads(role, about string, o op) route { return route{about: about, role: role, op: o} }

// changes is a route that changes what touch says.
func changes[Req any](role, about string, o op, touch func(context.Context, *Req) (*control.Touch, error)) route {
	return route{about: about, role: role, op: o, touch: func(ctx context.Context, req any) (*control.Touch, error) { return touch(ctx, req.(*Req)) }}
}

// decode parses a request. It refuses unknown fields: a client that asks for more
// than this server supports must not get less.
func decode[Req any](body []byte) (*Req, error) {
	req := new(Req)
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(req); err != nil {
		return nil, fmt.Errorf("%w: request: %w", errclass.Usage, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: request: more than one JSON value", errclass.Usage)
	}
	return req, nil
}

func decoder[Req any]() func([]byte) (any, error) {
	return func(body []byte) (any, error) { return decode[Req](body) }
}

// reporting returns an op for a function that reports its own progress.
func reporting[Req, Res any](f func(context.Context, *Req, func(api.Progress)) (*Res, error)) op {
	return op{
		req: reflect.TypeFor[Req](), res: reflect.TypeFor[Res](), decode: decoder[Req](), long: true,
		run: func(ctx context.Context, req any, report func(api.Progress)) (any, error) {
			return f(ctx, req.(*Req), report)
		},
	}
}

// counting returns an op for a function that counts its work; task names the
// object of a request.
func counting[Req, Res any](task func(*Req) string, f func(context.Context, *Req, *acquire.Progress) (*Res, error)) op {
	o := reporting(func(ctx context.Context, req *Req, report func(api.Progress)) (*Res, error) {
		return control.Counted(ctx, task(req), report, func(p *acquire.Progress) (*Res, error) { return f(ctx, req, p) })
	})
	o.task = func(req any) string { return task(req.(*Req)) }
	return o
}

// simple returns an op for a function that is too fast for progress reports.
func simple[Req, Res any](f func(context.Context, *Req) (*Res, error)) op {
	o := reporting(func(ctx context.Context, req *Req, _ func(api.Progress)) (*Res, error) { return f(ctx, req) })
	o.long = false
	return o
}

// sending returns an op whose answer is bytes.
func sending[Req any](f func(context.Context, *Req, control.Bytes) error) op {
	return op{req: reflect.TypeFor[Req](), decode: decoder[Req](), send: func(ctx context.Context, req any, to control.Bytes) error { return f(ctx, req.(*Req), to) }}
}

// answers describes the result of an op by the type Res.
func answers[Res any](o op) op {
	o.res = reflect.TypeFor[Res]()
	return o
}

// lasting marks an op whose work continues after all files have arrived: its function
// returns a *control.Received.
func lasting(o op) op {
	o.long = true
	return o
}

// taking returns an op for a function that takes files.
func taking[Req, Res any](f func(context.Context, *Req, control.NextFile) (*Res, error)) op {
	return op{
		req: reflect.TypeFor[Req](), res: reflect.TypeFor[Res](), decode: decoder[Req](),
		take: func(ctx context.Context, req any, next control.NextFile) (any, error) {
			return f(ctx, req.(*Req), next)
		},
	}
}
