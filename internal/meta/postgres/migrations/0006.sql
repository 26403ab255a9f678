-- Nodes that share this database, and how long changes are kept for them.
create table node (
	name text collate "C" primary key,
	seen timestamptz not null,
	doc  json not null
);
create index on change (at);
