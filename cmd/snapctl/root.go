package main

// root is the whole tree of verbs, in the order in which help lists them.
func root() *verb {
	return &verb{
		name:  "snapctl",
		usage: "mirror, freeze, prove and rebuild package repositories",
		about: `snapctl talks to snapd over its control socket. Commands on files alone
(iuk with file arguments, verify of a directory, key, init) need no daemon.

A REF is a frozen snapshot's name (4.1), a snapshot's id
(debian@20261122T160000Z), the newest one (debian@latest), or the newest at or
before an ISO 8601 timestamp (debian@2026-11-22).

Options may stand before or after arguments. An option that may be repeated is
shown with "..."; its values may also follow one another once all arguments are
given.`,
		examples: []string{
			"snapctl init --from-apt",
			"snapctl sync",
			"snapctl freeze 4.1 --manifest build.manifest",
			"snapctl sources 4.1",
		},
		verbs: []*verb{
			initVerb(),
			statusVerb(), mirrorVerb(), syncVerb(),
			listVerb(), showVerb(), packagesVerb(), findVerb(), diffVerb(),
			freezeVerb(), sourcesVerb(),
			verifyVerb(), exportVerb(), importVerb(), sbomVerb(),
			recordVerb(),
			pinVerb(), unpinVerb(), rmVerb(), gcVerb(), fsckVerb(),
			keyVerb(),
			imageVerb(), rebuildVerb(),
			iukVerb(),
			helpVerb(), completionVerb(), manVerb(), completeVerb(),
		},
	}
}
