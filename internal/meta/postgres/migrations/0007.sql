-- What webhooks report, and their deliveries. Events are numbered in the order of
-- commits.
create table event (
	n   bigint generated always as identity primary key,
	at  timestamptz not null,
	id  text collate "C" not null unique,
	doc json not null
);
create table delivery (
	webhook text collate "C" not null,
	n       bigint not null references event on delete cascade,
	pending boolean not null,
	next    timestamptz,            -- null: not pending
	doc     json not null,
	primary key (webhook, n)
);
create index on delivery (n);
create index on delivery (webhook, n) where pending;
