package main

// root is the tree of verbs, in the order of help.
func root() *verb {
	return &verb{
		name:  "snapctl",
		usage: "mirror and freeze package repositories, and verify and rebuild releases",
		about: `snapctl talks to snapd over its control socket, or with --server over the network
(see snapctl help token). Commands that only use files (compare, iuk with file
arguments, verify of a directory, key, init) need no daemon.

A REF is the name of a freeze (4.1) or a channel (stable), the ID of a snapshot
(debian@20261122T160000Z), the newest snapshot of a mirror (debian@latest), or
the newest one at or before an ISO 8601 timestamp (debian@2026-11-22).

Options can be given before or after arguments. "..." marks an option that can
be repeated; after the last argument its values may also follow each other.`,
		examples: []string{
			"snapctl init --from-apt",
			"snapctl sync",
			"snapctl freeze 4.1 --manifest build.manifest",
			"snapctl sources 4.1",
		},
		verbs: []*verb{
			initVerb(),
			statusVerb(), mirrorVerb(), syncVerb(),
			addVerb(), removeVerb(),
			listVerb(), showVerb(), packagesVerb(), findVerb(), diffVerb(),
			freezeVerb(), labelVerb(), sourcesVerb(),
			verifyVerb(), exportVerb(), importVerb(), sbomVerb(),
			recordVerb(),
			channelVerb(),
			pinVerb(), unpinVerb(), rmVerb(), gcVerb(), fsckVerb(),
			keyVerb(),
			tokenVerb(), auditVerb(), jobsVerb(), webhookVerb(),
			logVerb(), witnessVerb(),
			imageVerb(), rebuildVerb(), compareVerb(), runVerb(), attestVerb(),
			iukVerb(),
			helpVerb(), completionVerb(), manVerb(), completeVerb(),
		},
	}
}
