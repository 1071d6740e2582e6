-- uninstall.sql: removes everything that install.sql made, with the schema. Safe to run twice.
--
--     psql -v ON_ERROR_STOP=1 -f uninstall.sql                 from public.audits
--     psql -v ON_ERROR_STOP=1 -v table=app.audits -f ...       from another table
--
-- `auditstream uninstall` finds the table itself, revokes what `install --role` granted on the database, fills in the variables below, and
-- runs the rest.
\if :{?table}
\else
    \set table public.audits
\endif
\set lock_wait 30s \set lock_timeout 200ms
\set triggers true
\set view true
\set objects true
\set schema true
\set revokes '' \set more ''

begin isolation level read committed read write;
set local standard_conforming_strings = on;
-- One install or uninstall at a time.
set local lock_timeout = :'lock_wait';
do $$ begin perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('auditstream', 0)); end $$;
-- While "drop trigger" waits for a lock, all later readers and writers of the table wait behind it, so its wait must be short.
set local lock_timeout = :'lock_timeout';
set local search_path = pg_catalog, pg_temp;
:revokes
\if :view
drop view if exists auditstream.progress;
\endif
\if :triggers
drop trigger if exists auditstream_insert on :table;
drop trigger if exists auditstream_update on :table;
drop trigger if exists auditstream_rekey on :table;
drop trigger if exists auditstream_delete on :table;
drop trigger if exists auditstream_key on :table;
drop trigger if exists auditstream_owner on :table;
drop trigger if exists auditstream_truncate on :table;
\endif
:more
\if :objects
drop function if exists auditstream.changed();
-- The objects of versions up to 4.
drop function if exists auditstream.notify_change();
drop function if exists auditstream.unwatch(bigint, bigint[]);
drop function if exists auditstream.prepare_watch();
do $$ declare gone text; begin -- objects of other kinds with these names stay
    for gone in select format('drop %s auditstream.%I', case c.relkind when 'v' then 'view' else 'table' end, c.relname)
        from pg_class c where c.relnamespace = to_regnamespace('auditstream') and (c.relname, c.relkind) in (('feeds', 'v'), ('choices', 'r'), ('watch', 'r')) loop
        execute gone;
    end loop;
end $$;
\endif
\if :schema
-- Never cascade: it would drop what somebody else has put there.
drop schema if exists auditstream;
\endif
commit;
