create table channel (
	name   text collate "C" primary key,
	shows  text collate "C" not null,   -- a freeze; '' for a channel that was removed
	doc    json not null
);
create table channel_move (
	channel text collate "C" not null,
	at      bigint not null,
	doc     json not null,
	primary key (channel, at)
);
