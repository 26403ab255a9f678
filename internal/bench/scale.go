package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"example.org/snapd/internal/meta/postgres/pgtest"
)

// runScale measures the memory of nodes whose database has millions of package entries:
// those of a synced mirror, and of copies of it made in the database. Ten million entries
// take half an hour and 20 GB in /var/tmp.
func runScale(ctx context.Context, b *bench) (err error) {
	if err := b.makeDeb(ctx); err != nil {
		return err
	}
	if err := b.serve(ctx); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "scale")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f := &fixtures{ctx: ctx, dir: dir}
	defer f.end(&err)
	pars, _, err := stanzas(b.packages)
	if err != nil {
		return err
	}
	each := len(pars)
	count := (b.entries + each - 1) / each
	var mirrors strings.Builder
	for i := range count {
		mirrors.WriteString(b.debMirror(scaleName(i), "on_demand"))
	}
	g := b.startGrown(f, dir, mirrors.String())
	inMemory := g.url
	if g.url, err = onDisk(f, g.db); err != nil {
		return err
	}
	g.store = strings.Replace(g.store, inMemory, g.url, 1)
	one, err := g.add(ctx, "all")
	if err != nil {
		return err
	}
	if _, err := one.ctl(ctx, "sync", scaleName(0)); err != nil {
		return err
	}
	one.stop()
	start := time.Now()
	entries := copies(f, g.url, count, each)
	fmt.Printf("  %d entries of %d mirrors, copied in %.0f s\n", entries, count, time.Since(start).Seconds())
	if err := one.run(ctx); err != nil {
		return err
	}
	node, err := g.add(ctx, "serve")
	if err != nil {
		return err
	}
	slowest, what, err := askEach(ctx, node, count)
	if err != nil {
		return err
	}
	idle, err := one.ctl(ctx, "sync")
	if err != nil {
		return err
	}
	const bound = 200e6
	for _, m := range []struct {
		what string
		s    *server
	}{{"a node that serves", node}, {"a node that syncs", one}} {
		anon := rssAnon(m.s.cmd.Process.Pid)
		b.add(row{work: "memory of " + m.what, ours: mega(anon), bound: "<= " + mega(bound), ok: judge(anon <= bound), note: fmt.Sprintf("of %d package entries in %d mirrors; slowest answer %s, of %s; a sync of all mirrors, unchanged, %s", entries, count, seconds(slowest), what, seconds(idle.wall))})
	}
	return nil
}

// askEach asks a node for pages and for files of each mirror, and returns the time and
// the subject of the slowest answer.
func askEach(ctx context.Context, node *server, count int) (slowest time.Duration, what string, err error) {
	asked := []string{"/", "/package/bash", "/mr/package/bash/", "/search?q=lib*", "/metrics"}
	for i := range count {
		for _, p := range []string{"/archive/%s/latest/dists/stable/InRelease", "/archive/%s/latest/dists/stable/main/binary-amd64/Packages.xz", "/archive/%s/latest/pool/", "/mirror/%s"} {
			asked = append(asked, fmt.Sprintf(p, scaleName(i)))
		}
	}
	for _, p := range asked {
		took, err := ask(ctx, http.MethodGet, "http://"+node.addr+p, "")
		if err != nil {
			return 0, "", err
		}
		if took > slowest {
			slowest, what = took, p
		}
	}
	return slowest, what, nil
}

func scaleName(i int) string { return fmt.Sprintf("scale-%04d", i) }

// onDisk creates an empty database whose tables are in a directory on disk, because the
// server's own directory is in memory if possible. It returns the URL of the database.
func onDisk(f *fixtures, db *pgtest.Server) (string, error) {
	st, err := os.Stat(db.Dir)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("/var/tmp", "snapd-scale-") // accessible to the server's user
	if err != nil {
		return "", err
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, int(st.Sys().(*syscall.Stat_t).Uid), -1); err != nil {
		return "", err
	}
	pgtest.Exec(f, db.URL("postgres"), "create tablespace disk location '"+dir+"'", "create database scale tablespace disk")
	return db.URL("scale"), nil
}

// copyMirror copies the first mirror, with another name and other numbers.
const copyMirror = `
do $$
declare
	source constant text := 'scale-0000';
	target constant text := '%s';
	src integer; dst integer; sold integer; snew integer; base bigint; i record; ids jsonb := '{}';
begin
	select id into src from mirror where name = source;
	insert into mirror (name, next_pid) select target, next_pid from mirror where id = src returning id into dst;
	base := (dst::bigint - src) << 40;
	select id into sold from suite where mirror = src;
	insert into suite (mirror, name) select dst, name from suite where id = sold returning id into snew;
	for i in select * from idx where suite = sold loop
		insert into idx (suite, name, dirty) values (snew, i.name, i.dirty);
	end loop;
	insert into generation select snew, gen, complete, replace(doc::text, source, target)::json from generation where suite = sold;
	insert into genref select snew, gen, kind, replace(owner, source, target) from genref where suite = sold;
	insert into snapshot select dst, at, replace(doc::text, source, target)::json from snapshot where mirror = src;
	insert into mirrorcheck select target, replace(doc::text, source, target)::json from mirrorcheck where mirror = source;
	insert into listed select snew, sha256, path, size, first, last from listed where suite = sold;
	insert into lpath select snew, path, sha256, at from lpath where suite = sold;
	insert into fact (mirror, pid, name, digest, block, doc, source) select dst, pid + base, name, digest, block + base, doc, f.source from fact f where mirror = src order by pid;
	insert into pfile select dst, path, pid + base, nth, sha256 from pfile where mirror = src order by path;
	insert into span select dst, pid + base, n.id, gfrom, gto from span s join idx o on o.id = s.idx join idx n on n.suite = snew and n.name = o.name where s.mirror = src order by pid;
	insert into stanza select dst, block + base, live, bytes from stanza where mirror = src;
end $$`

// checkEntries fails if the database has another number of package entries.
const checkEntries = "do $$ begin if (select count(*) from span) <> %d then raise 'the database has other entries'; end if; end $$"

// copies creates the other mirrors, and returns the number of package entries.
func copies(f *fixtures, url string, count, each int) (entries int) {
	var statements []string
	for i := 1; i < count; i++ {
		statements = append(statements, fmt.Sprintf(copyMirror, scaleName(i)))
	}
	entries = count * each
	pgtest.Exec(f, url, append(statements, "analyze", fmt.Sprintf(checkEntries, entries))...)
	return entries
}
