-- Text that we or the user chose is text, in the order of its bytes. What comes
-- from upstream (paths, package names, names of indices) is bytea: it need not be
-- valid in the encoding of the database.

create table lease (
	name    text collate "C" primary key,
	epoch   bigint not null,
	holder  text not null,          -- random for each acquisition; '' when given back
	who     text not null,
	expires timestamptz not null
);

create table note (
	name  text collate "C" primary key,
	value text not null
);

create table change (
	seq  bigint generated always as identity primary key,
	at   timestamptz not null default now(),
	what text not null,
	name text collate "C" not null
);

create table mirror (
	id       integer generated always as identity primary key,
	name     text collate "C" not null unique,
	next_pid bigint not null default 1
);
create table suite (
	id     integer generated always as identity primary key,
	mirror integer not null references mirror,
	name   text collate "C" not null,
	unique (mirror, name)
);
create table idx (
	id    integer generated always as identity primary key,
	suite integer not null references suite,
	name  bytea not null,
	dirty boolean not null default false,
	unique (suite, name)
);

create table snapshot (
	mirror integer not null references mirror,
	at     bigint not null,
	doc    json not null,
	primary key (mirror, at)
);
create table removed (
	mirror integer not null references mirror,
	at     bigint not null,
	primary key (mirror, at)
);
create table mirrorcheck (
	mirror text collate "C" primary key,
	doc    json not null
);
create table generation (
	suite    integer not null references suite,
	gen      bigint not null,
	complete boolean not null,
	doc      json not null,
	primary key (suite, gen)
);
create table genref (
	suite integer not null,
	gen   bigint not null,
	kind  smallint not null,
	owner text collate "C" not null,
	primary key (suite, gen, kind, owner)
);
create table gencandidate (           -- generations that lost a reference
	suite integer not null,
	gen   bigint not null,
	primary key (suite, gen)
);

-- The number of a stanza has the number of its mirror above bit 40.
create table fact (
	mirror integer not null,
	pid    bigint not null,
	name   bytea not null,          -- empty for stanzas of no use
	digest bytea not null,
	block  bigint not null,         -- number of the first stanza of its block
	doc    bytea not null,
	primary key (mirror, pid),
	unique (mirror, name, digest)
) partition by hash (mirror);
create table pfile (
	mirror integer not null,
	path   bytea not null,
	pid    bigint not null,
	nth    integer not null,
	sha256 bytea not null,
	primary key (mirror, path, pid, nth)
) partition by hash (mirror);
create index on pfile (sha256);
create index on pfile (mirror, pid);
create table span (
	mirror integer not null,
	pid    bigint not null,
	idx    integer not null,
	gfrom  bigint not null,
	gto    bigint check (gfrom < gto),   -- null: not ended
	primary key (mirror, pid, idx, gfrom)
) partition by hash (mirror);
create unique index on span (mirror, idx, pid) where gto is null;
create index on span (idx, gfrom);
create index on span (idx, gto) where gto is not null;
do $$ begin
	for i in 0..7 loop
		execute format('create table fact_%s partition of fact for values with (modulus 8, remainder %s)', i, i);
		execute format('create table pfile_%s partition of pfile for values with (modulus 8, remainder %s)', i, i);
		execute format('create table span_%s partition of span for values with (modulus 8, remainder %s)', i, i);
	end loop;
end $$;
create table stanza (
	mirror integer not null,
	block  bigint not null,
	live   integer not null,        -- facts that are in the block
	bytes  bytea not null,
	primary key (mirror, block)
);
alter table stanza alter bytes set storage external;  -- compressed already

-- References of packages are the rows of pfile; all others are here. Whatever is
-- referred to, or may be collected, has a row in blob, which whoever adds a
-- reference and whoever claims it lock.
create table ref (
	sha256 bytea not null,
	kind   smallint not null,
	owner  bytea not null,
	primary key (sha256, kind, owner)
);
create table blob (
	sha256 bytea primary key,
	state  smallint not null default 0,  -- 0: present, 1: collection candidate, 2: claimed
	since  bigint                        -- of a candidate; null: at once
);
create index on blob (sha256) where state > 0;

create table listed (
	suite  integer not null,
	sha256 bytea not null,
	path   bytea not null,
	size   bigint not null,
	first  bigint not null,
	last   bigint,                  -- null: listed by the newest
	primary key (suite, sha256)
);
create index on listed (sha256);
create index on listed (suite, last) where last is not null;
create table lpath (
	suite  integer not null,
	path   bytea not null,
	sha256 bytea not null,
	at     bigint not null,
	primary key (suite, path)
);
create table alias (
	algo   smallint not null,
	other  bytea not null,
	sha256 bytea not null,
	primary key (algo, other)
);

create table frozen (
	name text collate "C" primary key,
	doc  json not null
);
create table tombstone (               -- of freezes that were removed
	name text collate "C" primary key,
	doc  json not null
);
create table ftree (
	name   text collate "C" not null,
	path   bytea not null,
	sha256 bytea not null,
	size   bigint not null,
	mtime  bigint not null,
	primary key (name, path)
);
create table image (
	name    text collate "C" not null,
	variant text collate "C" not null,
	doc     json not null,
	primary key (name, variant)
);
create table kit (
	path text collate "C" primary key,
	doc  json not null
);
create table recording (
	name text collate "C" primary key,
	doc  json not null
);
create table rentry (
	name   text collate "C" not null,
	mirror text collate "C" not null,
	path   bytea not null,
	sha256 bytea not null,
	doc    json not null,
	primary key (name, mirror, path, sha256)
);
create table corrupt (
	sha256 bytea primary key,
	doc    json not null
);

-- The transparency log.
create table log_head (
	one boolean primary key default true check (one),
	doc json not null
);
create table log_tile (
	level integer not null,
	n     bigint not null,
	data  bytea not null,
	primary key (level, n)
);
create table log_name (
	name  bytea primary key,
	entry bigint not null
);
create table log_pending (
	name bytea primary key,
	doc  bytea not null
);
