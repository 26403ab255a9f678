// Package tlog defines the formats of the transparency log, an append-only Merkle tree of
// everything that a server has published: leaves, checkpoints, proofs, policies and keys.
// Below it, package sequencer is the log of a server, package witness cosigns the logs of
// others, and package monitor watches them.
//
// The formats are those of C2SP (https://c2sp.org): signed-note, tlog-checkpoint,
// tlog-tiles, tlog-cosignature, tlog-witness, tlog-proof and tlog-policy. The tree
// is that of RFC 6962, computed by golang.org/x/mod/sumdb/tlog. docs/LOG.md
// describes the leaves.
package tlog

import (
	"errors"

	"example.org/snapd/internal/errclass"
)

var (
	// ErrProof means that a proof, a checkpoint or a signature of the log is wrong.
	ErrProof = errclass.New(errclass.Security, "not proven by the transparency log")
	// ErrRewritten means that two signed states of one log contradict each other.
	ErrRewritten = errclass.New(errclass.Security, "the transparency log was rewritten")
	// ErrPolicy means that a policy file is malformed.
	ErrPolicy = errclass.New(errclass.Usage, "malformed log policy")
	// ErrKey means that a key file is malformed.
	ErrKey = errclass.New(errclass.Usage, "malformed log key")
	// ErrLeaf means that an entry was not written by snapd.
	ErrLeaf = errors.New("malformed log entry")
)

// Names of files.
const (
	ProofSuffix = ".tlog-proof" // added to the name of the proven file
	VKeyFile    = "log.vkey"    // the public key, on a server and in an export
	KeyFile     = "log-key"     // the private key, in a data directory
)

// Limits on what is read, in bytes.
const (
	MaxLeaf       = 1 << 10
	MaxCheckpoint = 64 << 10
	MaxProof      = 128 << 10
	MaxPolicy     = 1 << 20
	MaxKey        = 4 << 10
)
