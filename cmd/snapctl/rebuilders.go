package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/regfile"
)

// errRebuilder means that a rebuilder does not answer like rebuilderd.
var errRebuilder = errors.New("the rebuilder cannot be asked")

func fetchVerb() *verb {
	file := rebuilderOption
	file.required, file.usage = true, "rebuilders, their URLs and public keys"
	return &verb{
		name: "fetch", args: "NAME", min: 1, max: 1,
		usage: "keep rebuilders' attestations of the packages of a freeze",
		about: `fetch asks each rebuilder in --rebuilders that has a URL for its attestation of
each binary package, over the API of rebuilderd (reproduce.debian.net).
Attestations that are signed by a key of the rebuilder, and concern exactly the
file in the freeze, are kept beside the freeze, served and exported with it.
They count only for users who name the rebuilder: snapctl verify NAME
--rebuilders FILE --threshold N. snapctl connects to the rebuilders itself,
through the proxy that the environment names.`,
		examples: []string{"snapctl attest fetch 4.1 --rebuilders rebuilders.txt"},
		options:  []option{file},
		result:   new(api.FetchResult),
		long:     true,
		run:      runAttestFetch,
	}
}

// rebuilders returns the text of --rebuilders and the parsed rebuilders, or nil if the
// option is absent.
func (c *call) rebuilders() (text string, r *attest.Rebuilders, err error) {
	name := c.str("rebuilders")
	if name == "" {
		return "", nil, nil
	}
	data, err := regfile.Read(name, attest.MaxBuilders)
	if err != nil {
		return "", nil, fmt.Errorf("--rebuilders: %w", err)
	}
	if r, err = attest.ParseRebuilders(data); err != nil {
		return "", nil, fmt.Errorf("--rebuilders %s: %w", name, err)
	}
	return string(data), r, nil
}

// rebuilderThreshold reads --rebuilders and its --threshold.
func (c *call) rebuilderThreshold(req *api.VerifyRequest) error {
	text, r, err := c.rebuilders()
	if err != nil || r == nil {
		return err
	}
	n, err := strconv.Atoi(c.str("threshold"))
	if err != nil || n < 1 || n > len(r.Names()) {
		return c.usagef("--threshold %q: expected a number from 1 to %d, the number of rebuilders", c.str("threshold"), len(r.Names()))
	}
	req.Rebuilders, req.Threshold = text, n
	return nil
}

// Limits of asking a rebuilder.
const (
	rebuilderTime  = time.Minute // for one answer
	rebuilderTries = 3
	rebuilderAtOne = 4       // requests at once
	maxRebuilds    = 1 << 20 // bytes, of an answer
)

func runAttestFetch(ctx context.Context, c *call) error {
	name := c.arg(0)
	if err := c.checkName("name", name); err != nil {
		return err
	}
	_, r, err := c.rebuilders()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(r.List(), func(r attest.Rebuilder) bool { return r.URL != "" }) {
		return c.usagef(`--rebuilders %s: expected a rebuilder with a URL: "rebuilder NAME URL"`, c.str("rebuilders"))
	}
	var kept api.AttestationList
	if err := c.ask(ctx, "attest/list", api.AttestRef{Name: name, Envelopes: true}, &kept); err != nil {
		return err
	}
	have := map[string]bool{}
	for _, l := range kept.Rebuilds {
		links, err := attest.ParseLinks(l.Links)
		if err != nil {
			return fmt.Errorf("%s: %w", l.File, err)
		}
		for _, l := range links {
			have[l.Text()] = true
		}
	}
	var all api.PackageList
	if err := c.ask(ctx, "packages", api.PackagesRequest{Ref: name}, &all); err != nil {
		return err
	}
	binaries := binaryPackages(all.Packages)
	out := &api.FetchResult{Name: name, Rebuilders: []api.FetchedRebuilder{}, Files: []api.AttestedRebuilds{}}
	var found []*attest.Link
	var failed error
	for _, one := range r.List() {
		result := api.FetchedRebuilder{Name: one.Name}
		if one.URL != "" {
			result.Packages = len(binaries)
			f := &rebuilderFetch{c: c, r: r, one: one, result: &result, client: &http.Client{Timeout: rebuilderTime}}
			if err := f.packages(ctx, binaries); err != nil {
				failed = errors.Join(failed, fmt.Errorf("rebuilder %s: %w", one.Name, err))
			}
			found = append(found, f.links...)
		}
		out.Rebuilders = append(out.Rebuilders, result)
	}
	c.ui.endProgress()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	found = slices.DeleteFunc(found, func(l *attest.Link) bool { return have[l.Text()] })
	for _, list := range attest.EncodeLinks(found) {
		var r api.AttestedRebuilds
		if err := c.ask(ctx, "attest/rebuilds", api.AttestRebuilds{Name: name, Links: list}, &r); err != nil {
			return errors.Join(failed, err)
		}
		out.Files = append(out.Files, r)
	}
	if failed != nil {
		return failed
	}
	show(c.ui, out, c.ui.fetched)
	return nil
}

// binaryPackages returns the binary packages of a list, each file once.
func binaryPackages(list []api.Package) (out []api.Package) {
	seen := map[string]bool{}
	for _, p := range list {
		if p.Arch != "source" && p.Arch != "src" && p.SHA256 != "" && !seen[p.SHA256] {
			seen[p.SHA256] = true
			out = append(out, p)
		}
	}
	return out
}

// A rebuilderFetch asks one rebuilder.
type rebuilderFetch struct {
	c      *call
	r      *attest.Rebuilders
	one    attest.Rebuilder
	client *http.Client

	mu     sync.Mutex
	links  []*attest.Link
	result *api.FetchedRebuilder
}

// packages asks for the attestations of packages.
func (f *rebuilderFetch) packages(ctx context.Context, list []api.Package) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(rebuilderAtOne)
	var done atomic.Int64
	for _, p := range list {
		eg.Go(func() error {
			if err := f.pkg(ctx, p); err != nil {
				return fmt.Errorf("%s %s %s: %w", p.Name, p.Version, p.Arch, err)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.c.ui.progress(api.Progress{Task: f.one.Name, Phase: "attestations", Files: done.Add(1), FilesTotal: int64(len(list))})
			return nil
		})
	}
	return eg.Wait()
}

// pkg requests the attestations of a package, and keeps those that concern the file of
// the freeze and are signed by a key of the rebuilder.
func (f *rebuilderFetch) pkg(ctx context.Context, p api.Package) error {
	want, err := cas.ParseDigest(p.SHA256)
	if err != nil {
		return err
	}
	q := url.Values{"name": {p.Name}, "version": {p.Version}, "architecture": {p.Arch}}
	data, err := f.get(ctx, "/api/v1/packages/binary?"+q.Encode())
	if err != nil || data == nil {
		return err
	}
	var search struct {
		Records []struct {
			BuildID    *uint64 `json:"build_id"`
			ArtifactID *uint64 `json:"artifact_id"`
		}
	}
	if err := json.Unmarshal(data, &search); err != nil {
		return fmt.Errorf("%w: %s: %w", errRebuilder, f.one.URL, err)
	}
	for _, r := range search.Records {
		if r.BuildID == nil || r.ArtifactID == nil {
			continue // not built again yet
		}
		data, err := f.get(ctx, fmt.Sprintf("/api/v1/builds/%d/artifacts/%d/attestation", *r.BuildID, *r.ArtifactID))
		if err != nil {
			return err
		}
		if data == nil {
			continue // not reproduced
		}
		link, err := attest.ParseLink(data)
		ok := err == nil && slices.Contains(link.Products, want) && slices.Contains(f.r.Signers(link), f.one.Name)
		f.mu.Lock()
		if ok {
			f.links = append(f.links, link)
			f.result.Found++
		} else {
			f.result.Other++
		}
		f.mu.Unlock()
	}
	return nil
}

// get returns an answer of the rebuilder, or nil if the rebuilder does not have it.
func (f *rebuilderFetch) get(ctx context.Context, path string) ([]byte, error) {
	var last error
	for try := range rebuilderTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Duration(try) * time.Second):
			}
		}
		data, again, err := f.once(ctx, f.one.URL+path)
		if err == nil || !again {
			return data, err
		}
		last = err
	}
	return nil, last
}

// once makes one request. again reports whether the failure is transient.
func (f *rebuilderFetch) once(ctx context.Context, u string) (data []byte, again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, false, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := f.client.Do(req)
	if err != nil {
		return nil, ctx.Err() == nil, fmt.Errorf("%w: %w", errRebuilder, err)
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotFound:
		return nil, false, nil
	case res.StatusCode != http.StatusOK:
		return nil, res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests, fmt.Errorf("%w: %s answers %s", errRebuilder, u, res.Status)
	}
	data, err = io.ReadAll(io.LimitReader(res.Body, maxRebuilds+1))
	if err != nil {
		return nil, ctx.Err() == nil, fmt.Errorf("%w: %s: %w", errRebuilder, u, err)
	}
	if len(data) > maxRebuilds {
		return nil, false, fmt.Errorf("%s: larger than %s: %w", u, bytesText(maxRebuilds), errTooLarge)
	}
	return data, false, nil
}

// fetched prints the attestations that were fetched from rebuilders.
func (u *ui) fetched(r *api.FetchResult) {
	rows := [][]string{{"REBUILDER", "PACKAGES", "ATTESTED", "NOT COUNTED"}}
	for _, f := range r.Rebuilders {
		rows = append(rows, []string{f.Name, fmt.Sprint(f.Packages), fmt.Sprint(f.Found), fmt.Sprint(f.Other)})
	}
	u.table(rows...)
	for _, f := range r.Files {
		u.printf("kept %s in %s\n", count(f.Links, "attestation", "attestations"), f.File)
	}
	if len(r.Files) == 0 {
		u.printf("nothing new\n")
	}
}

// reproduced prints which packages of a freeze rebuilders have reproduced.
func (u *ui) reproduced(r *api.RebuilderResult) {
	if r == nil {
		return
	}
	u.heading("Packages that rebuilders have reproduced:")
	rows := [][]string{{"  BY", "PACKAGES"}}
	for n := len(r.By) - 1; n >= 0; n-- {
		rows = append(rows, []string{fmt.Sprintf("  %d of %d", n, len(r.Rebuilders)), fmt.Sprint(r.By[n])})
	}
	u.table(rows...)
	u.printf("  %d of %d by at least %d: %s\n", r.Reproduced, r.Packages, r.Threshold, strings.Join(r.Rebuilders, " "))
	for _, l := range []struct {
		what string
		list []api.RebuiltPackage
	}{{"By fewer:", r.Fewer}, {"By fewer, and need not be:", r.Excepted}} {
		if len(l.list) == 0 {
			continue
		}
		u.heading(l.what)
		rows := [][]string{{"  PACKAGE", "VERSION", "ARCH", "REPRODUCED BY"}}
		for _, p := range l.list {
			rows = append(rows, []string{"  " + p.Name, p.Version, p.Arch, orWord(strings.Join(p.Rebuilders, " "), "(nobody)")})
		}
		u.table(rows...)
	}
}
