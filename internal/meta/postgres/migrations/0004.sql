-- Who may use the control API over the network, and who changed what.
create table token (
	name text collate "C" primary key,
	hash bytea unique not null,
	doc  json not null
);
create table audit (
	n   bigint primary key,
	at  timestamptz not null,
	id  text collate "C" not null,
	doc json not null
);
