-- The index of the objects of a bucket (package objects). Times are seconds; null
-- is the zero time.
create table object (
	sha256   bytea not null,
	n        bigint not null,        -- of the upload
	state    smallint not null,      -- 0: present, 1: removed, 2: garbage
	since    bigint,                 -- removed or garbage; null: condemned
	why      text not null default '',
	size     bigint not null default 0,
	modified bigint,
	stored   bigint,
	primary key (sha256, n)
);
create unique index object_present on object (sha256) where state = 0;
create index on object (since) where state = 1;
create index on object (since nulls first) where state = 2;
create table object_counter (
	one boolean primary key default true check (one),
	n   bigint not null
);
