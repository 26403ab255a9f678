package client

import (
	"context"
	"io"

	"example.org/snapd/internal/api"
)

// Each method is one verb of the control API. Methods with progress, which may be nil,
// may take long. Freeze, Sync and Verify, and ImportTar once everything is sent, follow
// a job and continue after a lost connection; the other methods that send or receive
// files then fail.

// AddPackages adds packages to a local mirror and seals one snapshot. names are the
// packages' files.
func (c *Client) AddPackages(ctx context.Context, req AddRequest, names []string, progress func(Progress)) (*OwnResult, error) {
	res := new(OwnResult)
	return sent(res, c.Send(ctx, "add", req, names, res, progress))
}

// AttestAdd stores a builder's attestation of an image.
func (c *Client) AttestAdd(ctx context.Context, req AttestAdd) (*Attested, error) {
	return call[Attested](ctx, c, "attest/add", req, nil)
}

// AttestComparison stores the differences between the published image of a freeze and a
// rebuilt one.
func (c *Client) AttestComparison(ctx context.Context, req AttestComparison) (*AttestedComparison, error) {
	return call[AttestedComparison](ctx, c, "attest/comparison", req, nil)
}

// AttestList returns the attestations of the images of a freeze.
func (c *Client) AttestList(ctx context.Context, req AttestRef) (*AttestationList, error) {
	return call[AttestationList](ctx, c, "attest/list", req, nil)
}

// AttestRebuilds stores rebuilders' attestations of packages.
func (c *Client) AttestRebuilds(ctx context.Context, req AttestRebuilds) (*AttestedRebuilds, error) {
	return call[AttestedRebuilds](ctx, c, "attest/rebuilds", req, nil)
}

// AttestRemove removes an attestation or a comparison of a freeze, or rebuilders'
// attestations of its packages.
func (c *Client) AttestRemove(ctx context.Context, req AttestRemove) (*AttestRemoved, error) {
	return call[AttestRemoved](ctx, c, "attest/rm", req, nil)
}

// AttestStatement returns the statement for a builder to sign.
func (c *Client) AttestStatement(ctx context.Context, req AttestRequest) (*AttestStatement, error) {
	return call[AttestStatement](ctx, c, "attest/statement", req, nil)
}

// Audit returns the audit list.
func (c *Client) Audit(ctx context.Context, req AuditRequest) (*AuditList, error) {
	return call[AuditList](ctx, c, "audit", req, nil)
}

// ChannelHistory returns the moves of a channel.
func (c *Client) ChannelHistory(ctx context.Context, req ChannelRef) (*ChannelHistory, error) {
	return call[ChannelHistory](ctx, c, "channel/history", req, nil)
}

// ChannelList returns all channels.
func (c *Client) ChannelList(ctx context.Context) (*ChannelList, error) {
	return call[ChannelList](ctx, c, "channel/list", api.Empty{}, nil)
}

// ChannelRemove removes a channel.
func (c *Client) ChannelRemove(ctx context.Context, req ChannelRef) (*RemoveResult, error) {
	return call[RemoveResult](ctx, c, "channel/rm", req, nil)
}

// ChannelSet moves a channel to a freeze.
func (c *Client) ChannelSet(ctx context.Context, req ChannelSet) (*ChannelResult, error) {
	return call[ChannelResult](ctx, c, "channel/set", req, nil)
}

// ChannelShow returns one channel.
func (c *Client) ChannelShow(ctx context.Context, req ChannelRef) (*Channel, error) {
	return call[Channel](ctx, c, "channel/show", req, nil)
}

// Diff returns the differences of two snapshots or freezes.
func (c *Client) Diff(ctx context.Context, req DiffRequest) (*Diff, error) {
	return call[Diff](ctx, c, "diff", req, nil)
}

// ExportTar writes a freeze to w as a tar stream.
func (c *Client) ExportTar(ctx context.Context, req ExportTar, w io.Writer, progress func(Progress)) error {
	return c.ReceiveStream(ctx, "export/tar", req, w, progress)
}

// Find returns the snapshots and freezes that contain packages.
func (c *Client) Find(ctx context.Context, req FindRequest) (*FindResult, error) {
	return call[FindResult](ctx, c, "find", req, nil)
}

// Freeze makes a freeze.
func (c *Client) Freeze(ctx context.Context, req FreezeRequest, progress func(Progress)) (*FreezeResult, error) {
	return call[FreezeResult](ctx, c, "freeze", req, progress)
}

// GC deletes unreferenced blobs and expired snapshots.
func (c *Client) GC(ctx context.Context, req GCRequest) (*GCResult, error) {
	return call[GCResult](ctx, c, "gc", req, nil)
}

// ImageAdd records an image of a freeze. names has one file, the image.
func (c *Client) ImageAdd(ctx context.Context, req ImageAdd, names []string, progress func(Progress)) (*Image, error) {
	res := new(Image)
	return sent(res, c.Send(ctx, "image/add", req, names, res, progress))
}

// ImageGet writes an image to w, without checking its digest: see Receive.
func (c *Client) ImageGet(ctx context.Context, req ImageGet, w io.Writer, progress func(Progress)) error {
	return c.ReceiveStream(ctx, "image/get", req, w, progress)
}

// ImageList returns all recorded images.
func (c *Client) ImageList(ctx context.Context) (*ImageList, error) {
	return call[ImageList](ctx, c, "image/list", api.Empty{}, nil)
}

// ImportTar imports a freeze from the tar stream that write writes.
func (c *Client) ImportTar(ctx context.Context, req ImportTar, write func(context.Context, io.Writer) error, progress func(Progress)) (*TransferResult, error) {
	res := new(TransferResult)
	return sent(res, c.SendStream(ctx, "import/tar", req, write, res, progress))
}

// Jobs returns running and recently ended jobs.
func (c *Client) Jobs(ctx context.Context) (*JobList, error) {
	return call[JobList](ctx, c, "jobs", api.Empty{}, nil)
}

// JobsCancel cancels a job that this token requested, or any job with the role admin.
func (c *Client) JobsCancel(ctx context.Context, req JobRef) (*Job, error) {
	return call[Job](ctx, c, "jobs/cancel", req, nil)
}

// JobsShow returns one job with its result.
func (c *Client) JobsShow(ctx context.Context, req JobRef) (*Job, error) {
	return call[Job](ctx, c, "jobs/show", req, nil)
}

// KitPublish publishes upgrade kits.
func (c *Client) KitPublish(ctx context.Context, req KitPublish, names []string, progress func(Progress)) (*KitPublish, error) {
	res := new(KitPublish)
	return sent(res, c.Send(ctx, "kit/publish", req, names, res, progress))
}

// Label changes the labels and the description of a freeze.
func (c *Client) Label(ctx context.Context, req LabelRequest) (*LabelResult, error) {
	return call[LabelResult](ctx, c, "label", req, nil)
}

// List returns snapshots and freezes.
func (c *Client) List(ctx context.Context, req ListRequest) (*SnapshotList, error) {
	return call[SnapshotList](ctx, c, "list", req, nil)
}

// LogEntries returns entries of the transparency log.
func (c *Client) LogEntries(ctx context.Context, req LogEntriesRequest) (*LogEntries, error) {
	return call[LogEntries](ctx, c, "log/entries", req, nil)
}

// LogShow returns the state of the transparency log.
func (c *Client) LogShow(ctx context.Context, req LogRequest) (*LogStatus, error) {
	return call[LogStatus](ctx, c, "log/show", req, nil)
}

// LogVerify verifies the transparency log.
func (c *Client) LogVerify(ctx context.Context) (*LogStatus, error) {
	return call[LogStatus](ctx, c, "log/verify", api.Empty{}, nil)
}

// MirrorList returns all mirrors.
func (c *Client) MirrorList(ctx context.Context) (*MirrorList, error) {
	return call[MirrorList](ctx, c, "mirror/list", api.Empty{}, nil)
}

// MirrorShow returns one mirror.
func (c *Client) MirrorShow(ctx context.Context, req MirrorRef) (*MirrorDetail, error) {
	return call[MirrorDetail](ctx, c, "mirror/show", req, nil)
}

// Packages returns the packages of a snapshot or freeze.
func (c *Client) Packages(ctx context.Context, req PackagesRequest) (*PackageList, error) {
	return call[PackageList](ctx, c, "packages", req, nil)
}

// Pin keeps a snapshot from being removed.
func (c *Client) Pin(ctx context.Context, req PinRequest) (*Snapshot, error) {
	return call[Snapshot](ctx, c, "pin", req, nil)
}

// RecordList returns all recordings.
func (c *Client) RecordList(ctx context.Context) (*RecordList, error) {
	return call[RecordList](ctx, c, "record/list", api.Empty{}, nil)
}

// RecordRemove removes a recording.
func (c *Client) RecordRemove(ctx context.Context, req RecordRef) (*RemoveResult, error) {
	return call[RemoveResult](ctx, c, "record/rm", req, nil)
}

// RecordShow returns one recording.
func (c *Client) RecordShow(ctx context.Context, req RecordRef) (*Recording, error) {
	return call[Recording](ctx, c, "record/show", req, nil)
}

// RecordStart starts a recording.
func (c *Client) RecordStart(ctx context.Context, req RecordStart) (*Recording, error) {
	return call[Recording](ctx, c, "record/start", req, nil)
}

// RecordStop stops a recording.
func (c *Client) RecordStop(ctx context.Context, req RecordRef) (*Recording, error) {
	return call[Recording](ctx, c, "record/stop", req, nil)
}

// RemovePackages removes packages from a local mirror, in one new snapshot.
func (c *Client) RemovePackages(ctx context.Context, req OwnRemove) (*OwnResult, error) {
	return call[OwnResult](ctx, c, "remove", req, nil)
}

// Remove removes a snapshot or a freeze.
func (c *Client) Remove(ctx context.Context, req RefRequest) (*RemoveResult, error) {
	return call[RemoveResult](ctx, c, "rm", req, nil)
}

// SBOM returns the software bill of materials of a freeze.
func (c *Client) SBOM(ctx context.Context, req SBOMRequest) (*SBOMResult, error) {
	return call[SBOMResult](ctx, c, "sbom", req, nil)
}

// Show returns one snapshot or freeze, or a package in it.
func (c *Client) Show(ctx context.Context, req ShowRequest) (*ShowResult, error) {
	return call[ShowResult](ctx, c, "show", req, nil)
}

// Sources returns the configuration of apt or dnf.
func (c *Client) Sources(ctx context.Context, req SourcesRequest) (*SourcesResult, error) {
	return call[SourcesResult](ctx, c, "sources", req, nil)
}

// Status returns the state of the server.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return call[Status](ctx, c, "status", api.Empty{}, nil)
}

// Sync syncs mirrors.
func (c *Client) Sync(ctx context.Context, req SyncRequest, progress func(Progress)) (*SyncResult, error) {
	return call[SyncResult](ctx, c, "sync", req, progress)
}

// TokenCreate makes a token. The server returns its secret only in this answer.
func (c *Client) TokenCreate(ctx context.Context, req TokenCreate) (*NewToken, error) {
	return call[NewToken](ctx, c, "token/create", req, nil)
}

// TokenList returns all tokens.
func (c *Client) TokenList(ctx context.Context) (*TokenList, error) {
	return call[TokenList](ctx, c, "token/list", api.Empty{}, nil)
}

// TokenRevoke revokes a token.
func (c *Client) TokenRevoke(ctx context.Context, req TokenRef) (*RemoveResult, error) {
	return call[RemoveResult](ctx, c, "token/revoke", req, nil)
}

// Unpin removes the pin of a snapshot.
func (c *Client) Unpin(ctx context.Context, req PinRequest) (*Snapshot, error) {
	return call[Snapshot](ctx, c, "unpin", req, nil)
}

// Verify verifies a snapshot or a freeze on the server.
func (c *Client) Verify(ctx context.Context, req VerifyRequest, progress func(Progress)) (*VerifyResult, error) {
	return call[VerifyResult](ctx, c, "verify", req, progress)
}

// WebhookList returns all webhooks.
func (c *Client) WebhookList(ctx context.Context) (*WebhookList, error) {
	return call[WebhookList](ctx, c, "webhook/list", api.Empty{}, nil)
}

// WebhookLog returns the deliveries to webhooks.
func (c *Client) WebhookLog(ctx context.Context, req WebhookLogRequest) (*WebhookLog, error) {
	return call[WebhookLog](ctx, c, "webhook/log", req, nil)
}

// WebhookRedeliver delivers an event to a webhook again.
func (c *Client) WebhookRedeliver(ctx context.Context, req WebhookRedeliver) (*WebhookDelivery, error) {
	return call[WebhookDelivery](ctx, c, "webhook/redeliver", req, nil)
}

// WebhookTest sends a test event to a webhook.
func (c *Client) WebhookTest(ctx context.Context, req WebhookRef) (*WebhookTest, error) {
	return call[WebhookTest](ctx, c, "webhook/test", req, nil)
}

// call runs a verb.
func call[Result any](ctx context.Context, c *Client, verb string, req any, progress func(Progress)) (*Result, error) {
	res := new(Result)
	if err := c.Call(ctx, verb, req, res, progress); err != nil {
		return nil, err
	}
	return res, nil
}

// sent returns a result unless there is an error.
func sent[Result any](res *Result, err error) (*Result, error) {
	if err != nil {
		return nil, err
	}
	return res, nil
}
