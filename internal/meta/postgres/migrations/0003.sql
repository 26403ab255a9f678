-- The source package of a stanza: its own name, or that of the package which it was
-- built from; empty where that is not known. Rows of earlier versions are filled
-- from their documents in the same transaction.

alter table fact add column source bytea not null default '';
create index on fact (mirror, source) where source <> '';
create index on alias (sha256);
