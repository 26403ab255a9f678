package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog"
	"example.org/snapd/internal/tlog/monitor"
	"example.org/snapd/internal/tlog/witness"
)

// policyOptions name the trusted log.
var policyOptions = []option{
	{name: "policy", value: "FILE", usage: "trusted log and witnesses, a tlog-policy file"},
	{name: "log-key", value: "FILE", usage: "public key of the trusted log, as in log.vkey; no witness is needed"},
}

// logTime limits the time of one request to a log.
const logTime = time.Minute

func logVerb() *verb {
	return &verb{
		name:  "log",
		usage: "show, verify and monitor the transparency log",
		about: `The log has an entry for everything that a server has published, and can only
grow: witnesses and monitors detect a server that rewrites its history. See
docs/LOG.md.`,
		examples: []string{
			"snapctl log show",
			"snapctl log monitor https://mirror.example.org/log --state mirror.state",
		},
		verbs: []*verb{
			{
				name: "show", args: "[NAME]", max: 1,
				usage:    "show the state of the log, and the entry of a freeze",
				examples: []string{"snapctl log show", "snapctl log show 4.1"},
				result:   new(api.LogStatus),
				run: func(ctx context.Context, c *call) error {
					return c.logStatus(ctx, "log/show", api.LogRequest{Name: c.arg(0)})
				},
			},
			{
				name:     "verify",
				usage:    "compute the log again from its entries and compare it with the signed one",
				examples: []string{"snapctl log verify"},
				result:   new(api.LogStatus),
				run:      func(ctx context.Context, c *call) error { return c.logStatus(ctx, "log/verify", api.Empty{}) },
			},
			{
				name:     "export",
				usage:    "print every entry, one JSON document on each line",
				examples: []string{"snapctl log export > log.jsonl"},
				options:  []option{{name: "from", value: "N", usage: "begin with entry N (default: 0)"}},
				result:   new(api.LogEntries),
				run:      runLogExport,
			},
			{
				name: "monitor", args: "URL", min: 1, max: 1,
				usage: "check that a log only grows and never contradicts itself",
				about: `monitor reads the entries since the last run, checks that they extend the
history in the state file, and prints them. If the history was rewritten or
shortened, a name has two manifests, or upstream did not sign a document, the
exit code is 4, and monitor prints the two signed checkpoints, which prove it to
anybody. It then leaves the state file unchanged.

Run it from a timer, on a machine that the server does not control.`,
				examples: []string{"snapctl log monitor https://mirror.example.org/log --state mirror.state --mirror copy --policy policy"},
				options: append([]option{
					{name: "state", value: "FILE", required: true, usage: "state of the monitor; created at the first run"},
					{name: "mirror", value: "DIR", usage: "keep a copy of the whole log here"},
					{name: "upstream-key", value: "FILE", many: true, usage: "require upstream's documents to be signed by a key in this file (.gpg or .asc)"},
					{name: "log-only", usage: "do not check the documents of snapshots"},
				}, policyOptions...),
				result: new(monitor.Report),
				reads:  true,
				run:    runLogMonitor,
			},
		},
	}
}

func (c *call) logStatus(ctx context.Context, path string, req any) error {
	var r api.LogStatus
	if err := c.ask(ctx, path, req, &r); err != nil {
		return err
	}
	show(c.ui, &r, c.ui.logStatus)
	return nil
}

func (u *ui) logStatus(r *api.LogStatus) {
	verified := ""
	if r.Verified {
		verified = "every entry and tile"
	}
	u.fields("Log", r.Origin, "Key", r.Key, "Entries", strconv.FormatInt(r.Size, 10), "Root", r.Root, "Witnessed", r.Witnessed, "Verified", verified, "Refused", r.Refused, "Damage", r.Damage)
	if len(r.Witnesses) > 0 {
		u.printf("\n")
		rows := [][]string{{"WITNESS", "COSIGNED", "URL", "ERROR"}}
		for _, w := range r.Witnesses {
			rows = append(rows, []string{w.Name, strconv.FormatInt(w.Size, 10), w.URL, w.Error})
		}
		u.table(rows...)
	}
	if r.Entry != nil {
		u.printf("\nentry %d: %s\n\n", r.Entry.Index, r.Entry.Entry)
		u.text(r.Entry.Proof)
	}
}

func runLogExport(ctx context.Context, c *call) error {
	from, err := strconv.ParseInt(orWord(c.str("from"), "0"), 10, 64)
	if err != nil || from < 0 {
		return c.usagef("--from %q: expected the number of an entry", c.str("from"))
	}
	all := api.LogEntries{Entries: []string{}, Next: from}
	for {
		var page api.LogEntries
		if err := c.ask(ctx, "log/entries", api.LogEntriesRequest{From: all.Next}, &page); err != nil {
			return err
		}
		if c.ui.json {
			all.Entries = append(all.Entries, page.Entries...)
		} else {
			for _, e := range page.Entries {
				c.ui.text(e + "\n")
			}
		}
		all.Next, all.Size = page.Next, page.Size
		if len(page.Entries) == 0 || page.Next >= page.Size {
			break
		}
	}
	if c.ui.json {
		c.ui.document(&all)
	}
	return nil
}

// policy returns the text of a policy from --policy or --log-key, or "" if neither is
// given.
func (c *call) policy() (string, error) {
	policy, key := c.str("policy"), c.str("log-key")
	switch {
	case policy != "" && key != "":
		return "", c.usagef("--policy and --log-key exclude each other: a policy names its log")
	case policy != "":
		data, err := regfile.Read(policy, tlog.MaxPolicy)
		if err != nil {
			return "", fmt.Errorf("--policy: %w", err)
		}
		p, err := tlog.ParsePolicy(data)
		if err != nil {
			return "", fmt.Errorf("--policy %s: %w", policy, err)
		}
		if len(p.Logs) == 0 {
			return "", fmt.Errorf("--policy %s: %w: it names no log", policy, tlog.ErrPolicy)
		}
		return string(data), nil
	case key != "":
		data, err := regfile.Read(key, tlog.MaxKey)
		if err != nil {
			return "", fmt.Errorf("--log-key: %w", err)
		}
		k, err := tlog.ParseVerifierKey(string(data))
		if err != nil {
			return "", fmt.Errorf("--log-key %s: %w", key, err)
		}
		return "log " + k.Text + "\nquorum none\n", nil
	}
	return "", nil
}

// knownLogs is the file with the keys of logs that were seen before.
func (c *call) knownLogs() (string, error) {
	dir := c.p.getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) {
		home := c.p.getenv("HOME")
		if !filepath.IsAbs(home) {
			return "", errors.New("keys of logs cannot be remembered: neither XDG_STATE_HOME nor HOME is set; name the log with --log-key or --policy")
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "snapctl", "known_logs"), nil
}

// pinLog is called if neither --policy nor --log-key is given. It compares the key of
// the log with the first key that was seen for it, or remembers the key, and adds the
// outcome to the result.
func (c *call) pinLog(r *api.VerifyResult) error {
	if r.Log == nil || r.Log.Given || r.Exit != api.ExitOK {
		return nil
	}
	if loopback(r.Log.Origin) {
		r.Notes = append(r.Notes, "the log is named after a loopback address, which every machine has: its key is not remembered; set [log] origin, or name the key with --log-key or --policy")
		return nil
	}
	file, err := c.knownLogs()
	if err != nil {
		r.Notes = append(r.Notes, err.Error())
		return nil
	}
	data, err := regfile.Read(file, tlog.MaxPolicy)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(data)) {
		k, err := tlog.ParseVerifierKey(line)
		if err != nil || k.Name() != r.Log.Origin {
			continue
		}
		if k.Text == r.Log.Key {
			r.Notes = append(r.Notes, "the log's key is the one remembered in "+file+": its history is the one that you have seen before, if a monitor watches it")
			return nil
		}
		r.Faults = append(r.Faults, api.VerifyFault{
			Object: "transparency log " + r.Log.Origin, Expected: k.Text, Found: r.Log.Key,
			Message: "the log has another key than when it was first seen (" + file + "): this is another server, or its history was begun anew",
		})
		r.Exit = api.ExitVerify
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	if err := durable.WriteFile(file, append(data, r.Log.Key+"\n"...), 0o600); err != nil {
		return err
	}
	r.Notes = append(r.Notes, "the log was not known, and its key was remembered in "+file+": this proves nothing against the operator of the server; compare the key, or name it with --log-key or --policy")
	return nil
}

// loopback reports whether a log's name is a loopback address, which differs in meaning
// on each machine.
func loopback(origin string) bool {
	host, _, _ := strings.Cut(origin, "/")
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.Unmap().IsLoopback() || host == "localhost"
}

func runLogMonitor(ctx context.Context, c *call) error {
	text, err := c.policy()
	if err != nil {
		return err
	}
	conf := monitor.Config{
		URL: c.arg(0), State: c.str("state"), Mirror: c.str("mirror"), Client: &http.Client{Timeout: logTime}, Skip: c.on("log-only"),
	}
	if text != "" {
		if conf.Policy, err = tlog.ParsePolicy([]byte(text)); err != nil {
			return err
		}
	}
	keys, err := c.keyFiles("upstream-key")
	if err != nil {
		return err
	}
	if len(keys) > 0 {
		ring, err := parseKeyrings(keys)
		if err != nil {
			return err
		}
		conf.Signed = func(doc, signature []byte) error {
			var err error
			if signature == nil {
				_, err = sign.VerifyClearsigned(doc, sign.VerifyOptions{Keyring: ring, At: c.p.now()})
			} else {
				_, err = sign.VerifyDetached(doc, signature, sign.VerifyOptions{Keyring: ring, At: c.p.now()})
			}
			return err
		}
	}
	r, err := monitor.Run(ctx, conf)
	if err != nil {
		return fmt.Errorf("monitor %s: %w", c.arg(0), err)
	}
	show(c.ui, r, c.ui.monitored)
	if len(r.Alarms) > 0 {
		if err := c.ui.flush(); err != nil {
			return err
		}
		c.ui.failure(fmt.Sprintf("log %s: %s", orWord(r.Origin, c.arg(0)), r.Alarms[0].What), "keep both checkpoints: they are signed, and prove it to anybody")
		return exitCode(api.ExitVerify)
	}
	return nil
}

func (u *ui) monitored(r *monitor.Report) {
	u.fields("Log", r.Origin, "Key", r.Key, "Entries", fmt.Sprintf("%d, %d of them new", r.Size, len(r.Entries)), "Cosigned by", strings.Join(r.Witnesses, " "))
	for _, e := range r.Entries {
		u.printf("%s\n", e)
	}
	for _, n := range r.Notes {
		u.printf("note: %s\n", n)
	}
	for _, a := range r.Alarms {
		u.printf("\nalarm: %s\n", a.What)
		for _, e := range a.Entries {
			u.printf("  %s\n", e)
		}
		for _, c := range a.Checkpoints {
			u.printf("\n")
			u.text(cleanLines(c))
		}
	}
}

func witnessVerb() *verb {
	return &verb{
		name:  "witness",
		usage: "cosign the transparency logs of other servers",
		about: `A witness signs a state of a log only if it extends the state that it signed
last. Two operators can be each other's witnesses.`,
		examples: []string{"snapctl witness serve --name witness.example.org --dir /var/lib/witness --log mirror.vkey"},
		verbs: []*verb{{
			name:  "serve",
			usage: "answer the requests of logs for cosignatures (tlog-witness)",
			about: `The directory contains the key of the witness and, for each log, the last
checkpoint that it cosigned. Never restore the directory from an older copy,
with which the witness could cosign two histories: start again with a new name
and key.

When the witness is ready, it prints its line for a policy.`,
			examples: []string{"snapctl witness serve --name witness.example.org --dir /var/lib/witness --log mirror.vkey --listen 0.0.0.0:7380"},
			options: []option{
				{name: "name", value: "NAME", required: true, usage: "name of the witness: a host, or a host and a path"},
				{name: "dir", value: "DIR", required: true, usage: "key and state; created if needed"},
				{name: "log", value: "FILE", many: true, required: true, usage: "the public key of a log, as in log.vkey; or a policy with log lines"},
				{name: "listen", value: "ADDRESS", usage: "where to answer HTTP (default: 127.0.0.1:7380)"},
			},
			result: new(api.WitnessInfo),
			run:    runWitness,
		}},
	}
}

// witnessLogs reads the keys of logs from vkey files or policies.
func witnessLogs(files []string) (keys []*tlog.VerifierKey, err error) {
	for _, file := range files {
		data, err := regfile.Read(file, tlog.MaxPolicy)
		if err != nil {
			return nil, fmt.Errorf("--log: %w", err)
		}
		if k, err := tlog.ParseVerifierKey(string(data)); err == nil && !k.Cosigns() {
			keys = append(keys, k)
			continue
		}
		p, err := tlog.ParsePolicy(data)
		if err != nil || len(p.Logs) == 0 {
			return nil, fmt.Errorf("--log %s: %w: expected the key of a log or a policy with a log", file, tlog.ErrKey)
		}
		for _, l := range p.Logs {
			keys = append(keys, l.Key)
		}
	}
	return keys, nil
}

func runWitness(ctx context.Context, c *call) error {
	name := c.str("name")
	if !tlog.ValidName(name) {
		return c.usagef("--name %q: expected a name without spaces and plus signs", name)
	}
	keys, err := witnessLogs(c.list("log"))
	if err != nil {
		return err
	}
	dir := c.str("dir")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	signer, err := tlog.LoadOrMakeWitnessKey(filepath.Join(dir, "key"), name)
	if err != nil {
		return err
	}
	w, err := witness.New(witness.Config{Signer: signer, Logs: keys, Dir: filepath.Join(dir, "state"), Log: slog.New(slog.NewTextHandler(c.p.stderr, nil))})
	if err != nil {
		return err
	}
	defer w.Close()
	l, err := net.Listen("tcp", orWord(c.str("listen"), "127.0.0.1:7380"))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: w, ReadTimeout: logTime, WriteTimeout: logTime, IdleTimeout: logTime, MaxHeaderBytes: 16 << 10}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	info := api.WitnessInfo{Name: name, Key: signer.Verifier().Text, URL: "http://" + l.Addr().String()}
	show(c.ui, &info, func(i *api.WitnessInfo) { c.ui.printf("witness %s %s %s\n", i.Name, i.Key, i.URL) })
	if err := c.ui.flush(); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	// The state of every answered request is stored; logs send the others again.
	return srv.Close()
}
