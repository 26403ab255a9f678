package client

import "example.org/snapd/internal/api"

// Requests, results and the types of their fields, as in the JSON that `snapctl --json`
// prints and in /api/v1/openapi.json.
type (
	AddRequest         = api.AddRequest
	AttestAdd          = api.AttestAdd
	AttestComparison   = api.AttestComparison
	AttestedComparison = api.AttestedComparison
	AttestRemove       = api.AttestRemove
	AttestRemoved      = api.AttestRemoved
	AttestRebuilds     = api.AttestRebuilds
	AttestRef          = api.AttestRef
	AttestRequest      = api.AttestRequest
	AttestStatement    = api.AttestStatement
	Attestation        = api.Attestation
	AttestationList    = api.AttestationList
	Attested           = api.Attested
	AttestedRebuilds   = api.AttestedRebuilds
	AuditEntry         = api.AuditEntry
	AuditList          = api.AuditList
	AuditRequest       = api.AuditRequest
	BuilderDissent     = api.BuilderDissent
	BuilderImage       = api.BuilderImage
	BuilderResult      = api.BuilderResult
	Channel            = api.Channel
	ChannelEarlier     = api.ChannelEarlier
	ChannelHistory     = api.ChannelHistory
	ChannelList        = api.ChannelList
	ChannelMove        = api.ChannelMove
	ChannelRef         = api.ChannelRef
	ChannelResult      = api.ChannelResult
	ChannelSet         = api.ChannelSet
	Cover              = api.Cover
	CoverSnapshot      = api.CoverSnapshot
	Diff               = api.Diff
	DiffEntry          = api.DiffEntry
	DiffRequest        = api.DiffRequest
	Error              = api.Error
	Explain            = api.Explain
	ExportTar          = api.ExportTar
	File               = api.File
	FindRequest        = api.FindRequest
	FindResult         = api.FindResult
	FreezeRequest      = api.FreezeRequest
	FreezeResult       = api.FreezeResult
	Frozen             = api.Frozen
	FrozenMirror       = api.FrozenMirror
	GCRequest          = api.GCRequest
	GCResult           = api.GCResult
	Image              = api.Image
	ImageAdd           = api.ImageAdd
	ImageGet           = api.ImageGet
	ImageList          = api.ImageList
	ImportTar          = api.ImportTar
	Job                = api.Job
	JobList            = api.JobList
	JobRef             = api.JobRef
	KeyFile            = api.KeyFile
	KeyInfo            = api.KeyInfo
	KitFile            = api.KitFile
	KitPublish         = api.KitPublish
	LabelRequest       = api.LabelRequest
	LabelResult        = api.LabelResult
	LeaseStatus        = api.LeaseStatus
	ListRequest        = api.ListRequest
	LogEntries         = api.LogEntries
	LogEntriesRequest  = api.LogEntriesRequest
	LogEntry           = api.LogEntry
	LogProof           = api.LogProof
	LogRequest         = api.LogRequest
	LogStatus          = api.LogStatus
	LogWitness         = api.LogWitness
	ManifestFile       = api.ManifestFile
	Match              = api.Match
	MirrorDetail       = api.MirrorDetail
	MirrorList         = api.MirrorList
	MirrorRef          = api.MirrorRef
	MirrorStatus       = api.MirrorStatus
	MirrorSync         = api.MirrorSync
	NewToken           = api.NewToken
	NodeStatus         = api.NodeStatus
	OwnPackage         = api.OwnPackage
	OwnRemove          = api.OwnRemove
	OwnResult          = api.OwnResult
	Package            = api.Package
	PackageDetail      = api.PackageDetail
	PackageField       = api.PackageField
	PackageList        = api.PackageList
	PackagePlace       = api.PackagePlace
	PackagesRequest    = api.PackagesRequest
	PinRequest         = api.PinRequest
	Problem            = api.Problem
	Progress           = api.Progress
	RebuilderResult    = api.RebuilderResult
	Rebuilds           = api.Rebuilds
	RebuiltPackage     = api.RebuiltPackage
	RecordEntry        = api.RecordEntry
	RecordList         = api.RecordList
	RecordMirror       = api.RecordMirror
	RecordRef          = api.RecordRef
	RecordStart        = api.RecordStart
	Recording          = api.Recording
	RefRequest         = api.RefRequest
	Relied             = api.Relied
	RemoveResult       = api.RemoveResult
	Report             = api.Report
	ReportEntry        = api.ReportEntry
	SBOMRequest        = api.SBOMRequest
	SBOMResult         = api.SBOMResult
	Seen               = api.Seen
	ShowRequest        = api.ShowRequest
	ShowResult         = api.ShowResult
	ShownPackage       = api.ShownPackage
	Signer             = api.Signer
	Snapshot           = api.Snapshot
	SnapshotList       = api.SnapshotList
	SourceDiff         = api.SourceDiff
	SourcesRequest     = api.SourcesRequest
	SourcesResult      = api.SourcesResult
	Status             = api.Status
	StoredFiles        = api.StoredFiles
	SuiteAge           = api.SuiteAge
	SuiteDetail        = api.SuiteDetail
	SyncRequest        = api.SyncRequest
	SyncResult         = api.SyncResult
	Token              = api.Token
	TokenCreate        = api.TokenCreate
	TokenList          = api.TokenList
	TokenRef           = api.TokenRef
	TransferResult     = api.TransferResult
	VerifyFault        = api.VerifyFault
	VerifyRequest      = api.VerifyRequest
	VerifyResult       = api.VerifyResult
	Webhook            = api.Webhook
	WebhookDelivery    = api.WebhookDelivery
	WebhookList        = api.WebhookList
	WebhookLog         = api.WebhookLog
	WebhookLogRequest  = api.WebhookLogRequest
	WebhookRedeliver   = api.WebhookRedeliver
	WebhookRef         = api.WebhookRef
	WebhookTest        = api.WebhookTest
)

// Codes of an Error, for programs.
const (
	CodeInternal     = api.CodeInternal
	CodeUsage        = api.CodeUsage
	CodeNotFound     = api.CodeNotFound
	CodeGone         = api.CodeGone
	CodeExists       = api.CodeExists
	CodeVerify       = api.CodeVerify
	CodeRollback     = api.CodeRollback
	CodeUnavailable  = api.CodeUnavailable
	CodeNoSpace      = api.CodeNoSpace
	CodeAmbiguous    = api.CodeAmbiguous
	CodeMissing      = api.CodeMissing
	CodeBroken       = api.CodeBroken
	CodeNeedsAll     = api.CodeNeedsAll
	CodeInUse        = api.CodeInUse
	CodeNoSnapshot   = api.CodeNoSnapshot
	CodeEmpty        = api.CodeEmpty
	CodeRunning      = api.CodeRunning
	CodeClock        = api.CodeClock
	CodeInterrupted  = api.CodeInterrupted
	CodeUnsupported  = api.CodeUnsupported
	CodeUnauthorized = api.CodeUnauthorized
	CodeForbidden    = api.CodeForbidden
	CodeRateLimited  = api.CodeRateLimited
	CodeTooLarge     = api.CodeTooLarge
	CodeMethod       = api.CodeMethod
)

// Roles of a token. Each role includes the permissions of the one before.
const (
	RoleReader   = api.RoleReader
	RoleBuilder  = api.RoleBuilder
	RoleReleaser = api.RoleReleaser
	RoleAdmin    = api.RoleAdmin
)

// States of a Job.
const (
	JobRunning   = api.JobRunning
	JobDone      = api.JobDone
	JobFailed    = api.JobFailed
	JobCancelled = api.JobCancelled
)
