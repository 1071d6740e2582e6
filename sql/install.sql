-- install.sql: the view auditstream.progress and the triggers that announce its changes. Safe to run twice.
--
--     psql -v ON_ERROR_STOP=1 -f install.sql                   adopts public.audits, the table of audits.sql
--     psql -v ON_ERROR_STOP=1 -v table=app.audits -f ...       adopts the same table under another name
--
-- Any other table is adopted by `auditstream install`: it reads the table's columns from the catalog, fills in the
-- variables below, leaves out the lines that start with a backslash, and runs the rest (`--dry-run` prints it).
\if :{?table}
\else
    \set table public.audits
\endif
\set lock_timeout 200ms
\set key id \set user_id a.user_id \set user_email a.user_email \set message a.message \set error a.error
\set status 'coalesce(lower(a.status::text collate "C"), ''pending'')'
\set progress 'least(greatest(coalesce(a.progress, 0), 0), 100)::int'
\set geo_score 'case when a.geo_score not in (''NaN'', ''Infinity'', ''-Infinity'') then a.geo_score end'
\set total_pages 'case when a.total_pages is not null then least(greatest(a.total_pages, 0), 2147483647)::int end'
-- Who is watched is a set of advisory locks, docs/watch-as-locks.md: these are the class and the number of them, a sixth of the lock
-- table at most.
\set class 1635087465 \set buckets 1024 \set mask 1023
select coalesce((select n from pg_class c, lateral (select substring(pg_get_viewdef(c.oid) from '([0-9]{1,4}) AS buckets')::int as n) x
            where c.oid = to_regclass('auditstream.feeds') and n between 64 and 4096 and n & (n - 1) = 0),
        1 << length(ltrim(least(greatest(locks / 6, 64), 4096)::bit(13)::text, '0')) - 1) as buckets
    from (select current_setting('max_locks_per_transaction')::int
        * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) as locks) s \gset
select :buckets - 1 as mask \gset
-- false: the triggers notify without looking.
\set look true
\set owners 'user_id, user_email' \set has_owners true \set drop_owner false
\set stamp 'auditstream 5 psql' \set keep_always '' \set grants ''
\set objects true \set triggers true \set new_schema true \set new_feeds false \set drop_view false \set drop_triggers false
select to_regclass('auditstream.watch') is not null or to_regproc('auditstream.notify_change') is not null
    or to_regproc('auditstream.unwatch') is not null or to_regproc('auditstream.prepare_watch') is not null
    or exists (select from pg_trigger where tgname = 'auditstream_key' and tgfoid = to_regproc('auditstream.changed')) as old_schema \gset

-- Read committed, whatever the server's default: what another install did while this one waited has to be seen.
begin isolation level read committed read write;
-- A waiting "create trigger" makes every later writer of the table wait behind it, so it does not wait for long.
set local lock_timeout = :'lock_timeout';
set local standard_conforming_strings = on; set local quote_all_identifiers = off;
-- One install at a time.
do $$ begin perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('auditstream', 0)); end $$;
set local search_path = pg_catalog, pg_temp;
\if :objects
-- What a later version has installed is not replaced by an earlier one.
do $$ begin
    if substring(obj_description(to_regclass('auditstream.progress'), 'pg_class') from '^auditstream ([0-9]{1,9}) ')::int > 5 then
        raise 'the schema auditstream is newer than this install.sql, which is of version 5' using hint = 'Take the newer one.';
    end if;
end $$;
-- Whoever owns what is in the schema can replace it later, and then writers and serve run it.
set local auditstream.installed_on = :'table';
do $$ declare owner oid; begin
    select r.oid into owner from pg_roles r, pg_roles me where me.rolname = current_user and not r.rolsuper and r.oid in (
            select nspowner from pg_namespace where nspname = 'auditstream'
            union select relowner from pg_class where relnamespace = to_regnamespace('auditstream')
            union select proowner from pg_proc where pronamespace = to_regnamespace('auditstream'))
        and r.oid is distinct from (select relowner from pg_class where oid = to_regclass(current_setting('auditstream.installed_on')))
        and (me.rolsuper and r.oid <> me.oid or not pg_has_role(r.oid, 'usage'));
    if owner is not null then
        raise 'the schema auditstream or something in it belongs to %, who is no superuser and does not own the table', pg_get_userbyid(owner)
            using hint = 'Install as that role, or drop it.';
    end if;
end $$;
\if :new_schema
create schema if not exists auditstream;
\endif

-- All that `auditstream serve` reads. Its columns are fixed; what a table calls or types differently is adapted here.
\if :drop_view
drop view auditstream.progress;
\endif
create or replace view auditstream.progress as
select a.:key::bigint as audit_id, :user_id as user_id, :user_email as user_email, :status as status, :progress as progress,
    :message as message, :geo_score as geo_score, :total_pages as total_pages, :error as error
from :table as a
-- Always true, and not idle: it tells the planner that an integer or smallint key equals the bigint shown, so that reads use its index.
where a.:key = a.:key::bigint;
\if :triggers
\if :new_feeds
drop view if exists auditstream.feeds;
\endif
-- What serve has to know to take the locks by which the triggers' conditions see that somebody watches.
create or replace view auditstream.feeds as
select 'audits'::text as feed, :class::int as class, :buckets::int as buckets;

-- '*' asks the server to read everything that is watched. Whoever runs a statement of the application's runs this with its own rights.
create or replace function auditstream.changed() returns trigger language plpgsql as $auditstream$
begin
    perform pg_catalog.pg_notify('auditstream', '*');
    return null;
end
$auditstream$;
-- PostgreSQL asks whoever makes a partition for this, and the function has no rights of its own.
grant execute on function auditstream.changed() to public;
\endif
\endif
:grants
\if :objects
\if :triggers

-- From here to the commit writers of the table wait (create trigger takes share row exclusive): keep this part last.
-- A condition of a trigger for each row is evaluated right after the row was changed, as whoever writes it. It looks: a lock that can be
-- had is held by nobody who watches, and is given back at once. Else it notifies by itself. It is never true, so nothing is queued, and
-- can raise no error. A row without a key is nobody's. A column that is renamed is followed by its number.
create or replace trigger auditstream_insert after insert on :table for each row when (
    case when new.:key is null then false
         when :look and pg_catalog.pg_try_advisory_lock(:class, :buckets operator(pg_catalog.+) (pg_catalog.hashint8(new.:key::pg_catalog.int8) operator(pg_catalog.&) 63)) then not pg_catalog.pg_advisory_unlock(:class, :buckets operator(pg_catalog.+) (pg_catalog.hashint8(new.:key::pg_catalog.int8) operator(pg_catalog.&) 63))
         else pg_catalog.pg_notify('auditstream', new.:key::pg_catalog.text) is null end
) execute function auditstream.changed();
create or replace trigger auditstream_update after update on :table for each row when (
    case when case when new.:key is null then false
              when :look and pg_catalog.pg_try_advisory_lock(:class, pg_catalog.hashint8(new.:key::pg_catalog.int8) operator(pg_catalog.&) :mask) then not pg_catalog.pg_advisory_unlock(:class, pg_catalog.hashint8(new.:key::pg_catalog.int8) operator(pg_catalog.&) :mask)
              else pg_catalog.pg_notify('auditstream', new.:key::pg_catalog.text) is null end
         then true
         when old.:key operator(pg_catalog.=) new.:key then false
         else case when old.:key is null then false
              when :look and pg_catalog.pg_try_advisory_lock(:class, pg_catalog.hashint8(old.:key::pg_catalog.int8) operator(pg_catalog.&) :mask) then not pg_catalog.pg_advisory_unlock(:class, pg_catalog.hashint8(old.:key::pg_catalog.int8) operator(pg_catalog.&) :mask)
              else pg_catalog.pg_notify('auditstream', old.:key::pg_catalog.text) is null end end
) execute function auditstream.changed();
\if :drop_owner
drop trigger if exists auditstream_owner on :table;
\endif
\if :has_owners
create or replace trigger auditstream_owner after update of :owners on :table for each row when (
    case when new.:key is null then false
         when :look and pg_catalog.pg_try_advisory_lock(:class, :buckets operator(pg_catalog.+) (pg_catalog.hashint8(new.:key::pg_catalog.int8) operator(pg_catalog.&) 63)) then not pg_catalog.pg_advisory_unlock(:class, :buckets operator(pg_catalog.+) (pg_catalog.hashint8(new.:key::pg_catalog.int8) operator(pg_catalog.&) 63))
         else pg_catalog.pg_notify('auditstream', new.:key::pg_catalog.text) is null end
) execute function auditstream.changed();
\endif
create or replace trigger auditstream_delete after delete on :table for each row when (
    case when old.:key is null then false
         when :look and pg_catalog.pg_try_advisory_lock(:class, pg_catalog.hashint8(old.:key::pg_catalog.int8) operator(pg_catalog.&) :mask) then not pg_catalog.pg_advisory_unlock(:class, pg_catalog.hashint8(old.:key::pg_catalog.int8) operator(pg_catalog.&) :mask)
         else pg_catalog.pg_notify('auditstream', old.:key::pg_catalog.text) is null end
) execute function auditstream.changed();
create or replace trigger auditstream_truncate after truncate on :table for each statement execute function auditstream.changed();
:keep_always
-- Hearing this, serve looks for what was installed, and reads all that is watched.
notify auditstream, '*';
\endif
\if :drop_triggers
drop trigger if exists auditstream_insert on :table; drop trigger if exists auditstream_update on :table;
drop trigger if exists auditstream_delete on :table; drop trigger if exists auditstream_truncate on :table; drop trigger if exists auditstream_owner on :table;
drop view if exists auditstream.feeds; drop function if exists auditstream.changed();
\endif
\if :old_schema
-- What versions up to 4 had. To drop a trigger a lock is needed for which readers are waited for, too. Where it cannot be had the trigger is
-- left without an effect, and is dropped by the next install.
do $key$ declare t regclass := (select tgrelid from pg_trigger where tgname = 'auditstream_key' and tgparentid = 0
    and tgfoid in (select oid from pg_proc where pronamespace = 'auditstream'::regnamespace) limit 1); begin
    if t is not null then execute format('drop trigger auditstream_key on %s', t); end if;
exception when lock_not_available then
    execute format('create or replace trigger auditstream_key after update on %s for each row when (false) execute function auditstream.changed()', t);
end $key$;
drop function if exists auditstream.notify_change();
drop function if exists auditstream.unwatch(bigint, bigint[]);
drop function if exists auditstream.prepare_watch();
drop table if exists auditstream.watch;
\endif

-- What was installed and what came of it: a second install sees from the catalog alone that nothing has to change, and
-- repairs what somebody dropped, disabled or altered.
comment on view auditstream.progress is :'stamp';
do $stamp$ begin
    execute pg_catalog.format('comment on view auditstream.progress is %L', pg_catalog.concat_ws(' ',
        pg_catalog.obj_description('auditstream.progress'::pg_catalog.regclass, 'pg_class'), (
-- state: install reads it with this same query
select pg_catalog.md5(pg_catalog.concat_ws(' ', pg_catalog.pg_get_viewdef(v.oid), v.reloptions::text,
    (select pg_catalog.string_agg(pg_catalog.pg_get_viewdef(f.oid), ' ') from pg_catalog.pg_class f
     where f.relnamespace = v.relnamespace and f.relname = 'feeds' and f.relkind = 'v'),
    (select pg_catalog.string_agg(pg_catalog.concat(pg_catalog.pg_get_functiondef(p.oid),
        (select pg_catalog.string_agg(x::text, ' ' order by x::text collate "C") from pg_catalog.unnest(p.proacl) x)), ' ' order by p.proname)
     from pg_catalog.pg_proc p where p.pronamespace = v.relnamespace and p.proname in ('changed', 'notify_change', 'unwatch', 'prepare_watch')),
    -- Of a partitioned table's copies only those that were switched off: partitions come and go.
    (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', pg_catalog.pg_get_triggerdef(t.oid),
        case when t.tgenabled in ('O', 'A') then 'enabled' else t.tgenabled::text end), ' '
        order by t.tgrelid::pg_catalog.regclass::text collate "C", t.tgname)
     from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid
     where p.pronamespace = v.relnamespace and p.proname in ('changed', 'notify_change')
       and (t.tgparentid = 0 or t.tgenabled not in ('O', 'A')))))
from pg_catalog.pg_class v
where v.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = 'auditstream') and v.relname = 'progress'
-- end of state
    )));
end $stamp$;
\endif
commit;
