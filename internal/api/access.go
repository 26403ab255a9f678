package api

import "time"

// Roles of tokens, from the least to the most powerful. Each role includes those before
// it.
const (
	RoleReader   = "reader"   // reads everything
	RoleBuilder  = "builder"  // also makes recordings
	RoleReleaser = "releaser" // also freezes, labels, images, kits and pins
	RoleAdmin    = "admin"    // also syncs, removals, collections, tokens and the audit list
)

// Roles returns all roles, in that order.
func Roles() []string { return []string{RoleReader, RoleBuilder, RoleReleaser, RoleAdmin} }

// TokenCreate is `snapctl token create NAME`.
type TokenCreate struct {
	Name    string     `json:"name"`
	Role    string     `json:"role"`
	Mirrors []string   `json:"mirrors,omitempty"` // mirrors that the token may change; empty: all
	Names   []string   `json:"names,omitempty"`   // globs of names that the token may change; empty: all
	Expires *time.Time `json:"expires,omitempty"` // nil: never
}

// TokenRef names a token.
type TokenRef struct {
	Name string `json:"name"`
}

// Token is a token without its secret.
type Token struct {
	Name    string     `json:"name"`
	Role    string     `json:"role"`
	Mirrors []string   `json:"mirrors,omitempty"`
	Names   []string   `json:"names,omitempty"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
	Used    *time.Time `json:"last_used,omitempty"` // precise to the minute
	Revoked *time.Time `json:"revoked,omitempty"`
	State   string     `json:"state"` // "valid", "expired" or "revoked"
}

// NewToken is a new token with its secret, which is not shown again.
type NewToken struct {
	Token
	Secret string `json:"token"`
}

// TokenList is `snapctl token list`, by name.
type TokenList struct {
	Tokens []Token `json:"tokens"`
}

// AuditRequest is `snapctl audit`.
type AuditRequest struct {
	Since *time.Time `json:"since,omitempty"`
	After int64      `json:"after,omitempty"` // the number of the last entry of the page before
}

// AuditList is one page of the audit list, oldest first.
type AuditList struct {
	Entries []AuditEntry `json:"entries"`
	More    bool         `json:"more,omitempty"` // the next page begins after the last entry
}

// AuditEntry is one change, or an attempt that failed or was refused.
type AuditEntry struct {
	Number int64     `json:"number"`
	Time   time.Time `json:"time"`
	Who    string    `json:"who"`  // "user root (0)", "token ci"
	From   string    `json:"from"` // "socket", or an address
	Verb   string    `json:"verb"`
	What   string    `json:"what"`   // the object of the change
	Result string    `json:"result"` // "ok", "failed" or "refused"
	Detail string    `json:"detail,omitempty"`
}

// Results of an AuditEntry.
const (
	AuditOK      = "ok"
	AuditFailed  = "failed"
	AuditRefused = "refused"
)

// ProblemDetails is the body of an error answer (RFC 9457).
type ProblemDetails struct {
	Type   string `json:"type"`   // "urn:snapd:problem:" and the code
	Title  string `json:"title"`  // the same for all problems of this type
	Status int    `json:"status"` // HTTP status
	Detail string `json:"detail"` // what happened, for users
	Code   string `json:"code"`   // stable, for programs: as in Error
	Reason string `json:"reason,omitempty"`
	Exit   int    `json:"exit"` // exit code of snapctl
	Hint   string `json:"hint,omitempty"`
	Data   any    `json:"data,omitempty"` // as Error.Detail
}

// ProblemType is the Content-Type of ProblemDetails.
const ProblemType = "application/problem+json"

// ProblemTrailer is the trailer with the ProblemDetails of an error that interrupted an
// answer.
const ProblemTrailer = "Snapd-Problem"

const problemURN = "urn:snapd:problem:"

// problems are the titles and HTTP statuses of codes.
var problems = map[string]struct {
	title  string
	status int
}{
	CodeUsage:        {"The request is not valid", 400},
	CodeUnauthorized: {"A valid token is needed", 401},
	CodeForbidden:    {"The token does not allow this", 403},
	CodeNotFound:     {"It does not exist", 404},
	CodeMethod:       {"The method is not supported", 405},
	CodeGone:         {"It was removed", 410},
	CodeExists:       {"It exists already", 409},
	CodeInUse:        {"It is in use", 409},
	CodeRunning:      {"The recording is running", 409},
	CodeNoSnapshot:   {"A mirror has no snapshot", 409},
	CodeTooLarge:     {"The body is too large", 413},
	CodeVerify:       {"A signature, digest or proof is wrong", 422},
	CodeRollback:     {"Upstream went back to an older state", 422},
	CodeAmbiguous:    {"An entry fits several packages", 422},
	CodeMissing:      {"Something is missing", 422},
	CodeBroken:       {"Dependencies are not satisfied", 422},
	CodeNeedsAll:     {"Packages must be downloaded first", 422},
	CodeEmpty:        {"The freeze would be empty", 422},
	CodeRateLimited:  {"Too many failed attempts", 429},
	CodeInternal:     {"Internal error", 500},
	CodeUnsupported:  {"This is not supported", 501},
	CodeUnavailable:  {"Something that is needed is not available", 503},
	CodeClock:        {"The system clock seems wrong", 503},
	CodeInterrupted:  {"The work was interrupted", 503},
	CodeNoSpace:      {"There is not enough space", 507},
}

// Problem returns e as the body of an answer.
func (e *Error) Problem() *ProblemDetails {
	p, ok := problems[e.Code]
	if !ok {
		p = problems[CodeInternal]
	}
	return &ProblemDetails{
		Type: problemURN + e.Code, Title: p.title, Status: p.status, Detail: e.Message,
		Code: e.Code, Reason: e.Reason, Exit: e.Exit, Hint: e.Hint, Data: e.Detail,
	}
}

// Err returns the error that p describes.
func (p *ProblemDetails) Err() *Error {
	return &Error{Code: p.Code, Reason: p.Reason, Message: p.Detail, Exit: p.Exit, Hint: p.Hint, Detail: p.Data}
}
