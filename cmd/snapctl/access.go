package main

import (
	"context"
	"strings"

	"example.org/snapd/internal/api"
)

func tokenVerb() *verb {
	return &verb{
		name:  "token",
		usage: "control who may use the server over the network",
		examples: []string{
			"snapctl token create ci --role builder --expires 2027-01-01 > ci.token",
			"snapctl token list --server https://mirror.example.org:8443 --token-file admin.token",
		},
		verbs: []*verb{
			{
				name: "create", args: "NAME", min: 1, max: 1,
				usage: "make a token and print its secret",
				about: `The secret is printed once, on standard output, and only its SHA-256 is stored.
Each role includes the permissions of the roles above it:

  reader    read everything
  builder   make recordings
  releaser  make and label freezes, add images and kits, pin snapshots
  admin     sync, remove, collect garbage, manage tokens, read the audit list

--mirror and --name limit what a token may change, not what it may read. The
name of a token that was revoked or has expired can be used again.`,
				examples: []string{
					"snapctl token create ci --role builder --name 'build-*' --expires 2027-01-01 > ci.token",
					"snapctl token create release --role releaser --mirror debian",
				},
				options: []option{
					{name: "role", value: "ROLE", required: true, choices: api.Roles(), usage: "reader, builder, releaser or admin"},
					{name: "mirror", value: "M", many: true, usage: "allow changes to this mirror only"},
					{name: "name", value: "GLOB", many: true, usage: "allow changes only to freezes, recordings and channels with names like this, and to kits with such paths"},
					{name: "expires", value: "T", usage: "the token is valid until this timestamp (default: until it is revoked)"},
				},
				result: new(api.NewToken),
				run:    runTokenCreate,
			},
			{
				name:     "list",
				usage:    "list tokens, without their secrets",
				examples: []string{"snapctl token list"},
				result:   new(api.TokenList),
				run: func(ctx context.Context, c *call) error {
					var r api.TokenList
					if err := c.ask(ctx, "token/list", api.Empty{}, &r); err != nil {
						return err
					}
					show(c.ui, &r, c.ui.tokens)
					return nil
				},
			},
			{
				name: "revoke", args: "NAME", min: 1, max: 1,
				usage:    "revoke a token at once",
				examples: []string{"snapctl token revoke ci"},
				result:   new(api.RemoveResult),
				run: func(ctx context.Context, c *call) error {
					var r api.RemoveResult
					if err := c.ask(ctx, "token/revoke", api.TokenRef{Name: c.arg(0)}, &r); err != nil {
						return err
					}
					show(c.ui, &r, func(r *api.RemoveResult) { c.ui.printf("%s: revoked\n", r.Removed) })
					return nil
				},
			},
		},
	}
}

func runTokenCreate(ctx context.Context, c *call) error {
	req := api.TokenCreate{Name: c.arg(0), Role: c.str("role"), Mirrors: c.list("mirror"), Names: c.list("name")}
	if err := c.checkName("name", req.Name); err != nil {
		return err
	}
	var err error
	if req.Expires, err = c.timestamp("expires"); err != nil {
		return err
	}
	var r api.NewToken
	if err := c.ask(ctx, "token/create", req, &r); err != nil {
		return err
	}
	show(c.ui, &r, func(r *api.NewToken) {
		c.ui.printf("%s\n", r.Secret)
		c.ui.note("this is the secret of token %s: keep it, it is not shown again", r.Name)
	})
	return nil
}

func auditVerb() *verb {
	return &verb{
		name:     "audit",
		usage:    "list who changed what",
		about:    "The list has an entry for every change over the control socket or with a token,\nalso for one that failed or was refused.",
		examples: []string{"snapctl audit --since 2026-11-22"},
		options:  []option{{name: "since", value: "T", usage: "only entries from this timestamp on"}},
		result:   new(api.AuditList),
		run: func(ctx context.Context, c *call) error {
			since, err := c.timestamp("since")
			if err != nil {
				return err
			}
			all := api.AuditList{Entries: []api.AuditEntry{}}
			req := api.AuditRequest{Since: since}
			for more := true; more; {
				var page api.AuditList
				if err := c.ask(ctx, "audit", req, &page); err != nil {
					return err
				}
				all.Entries = append(all.Entries, page.Entries...)
				if more = page.More && len(page.Entries) > 0; more {
					req.After = page.Entries[len(page.Entries)-1].Number
				}
			}
			show(c.ui, &all, c.ui.audit)
			return nil
		},
	}
}

func jobsVerb() *verb {
	return &verb{
		name:     "jobs",
		usage:    "list running and recently ended jobs",
		about:    "A job is a long operation, which continues if its client loses the connection.\nEnded jobs are listed for a day, or until snapd stops.",
		examples: []string{"snapctl jobs", "snapctl jobs cancel NAQ5PGYHV6ZJGGUPCQPZFUQHPR"},
		result:   new(api.JobList),
		run: func(ctx context.Context, c *call) error {
			var r api.JobList
			if err := c.ask(ctx, "jobs", api.Empty{}, &r); err != nil {
				return err
			}
			show(c.ui, &r, func(r *api.JobList) { c.ui.jobs(r.Jobs...) })
			return nil
		},
		verbs: []*verb{
			{
				name: "cancel", args: "ID", min: 1, max: 1,
				usage:    "cancel your own job, or with the role admin any job",
				about:    "If other clients have requested the same job, it continues for them.",
				examples: []string{"snapctl jobs cancel NAQ5PGYHV6ZJGGUPCQPZFUQHPR"},
				result:   new(api.Job),
				run: func(ctx context.Context, c *call) error {
					var r api.Job
					if err := c.ask(ctx, "jobs/cancel", api.JobRef{ID: c.arg(0)}, &r); err != nil {
						return err
					}
					show(c.ui, &r, func(r *api.Job) {
						switch {
						case r.Ending || r.State == api.JobCancelled:
							c.ui.printf("%s: cancelled\n", r.ID)
						case r.State == api.JobRunning:
							c.ui.printf("%s: continues for other clients\n", r.ID)
						default:
							c.ui.printf("%s: ended before: %s\n", r.ID, r.State)
						}
					})
					return nil
				},
			},
		},
	}
}

// tokens prints tokens.
func (u *ui) tokens(r *api.TokenList) {
	rows := [][]string{{"NAME", "ROLE", "STATE", "EXPIRES", "LAST USED", "MIRRORS", "NAMES"}}
	for _, t := range r.Tokens {
		rows = append(rows, []string{t.Name, t.Role, t.State, orWord(timePtr(t.Expires), "never"), orWord(timePtr(t.Used), "never"), orWord(strings.Join(t.Mirrors, " "), "all"), orWord(strings.Join(t.Names, " "), "all")})
	}
	u.table(rows...)
}

// audit prints entries of the audit list.
func (u *ui) audit(r *api.AuditList) {
	rows := [][]string{{"TIME", "WHO", "FROM", "VERB", "WHAT", "RESULT"}}
	for _, e := range r.Entries {
		result := e.Result
		if e.Detail != "" {
			result += ": " + e.Detail
		}
		rows = append(rows, []string{timeText(e.Time), e.Who, e.From, e.Verb, e.What, result})
	}
	u.table(rows...)
}

// jobs prints jobs.
func (u *ui) jobs(jobs ...api.Job) {
	rows := [][]string{{"ID", "VERB", "WHAT", "WHO", "FROM", "STARTED", "STATE"}}
	for _, j := range jobs {
		state := j.State
		switch {
		case j.Error != nil:
			state += ": " + j.Error.Message
		case j.State == api.JobRunning && j.Progress != nil:
			state = j.Progress.Phase
		}
		rows = append(rows, []string{j.ID, j.Verb, j.What, j.Who, j.From, timeText(j.Started), state})
	}
	u.table(rows...)
}
