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
\set key id
\set user_id a.user_id
\set user_email a.user_email
\set status 'coalesce(lower(a.status::text collate "C"), ''pending'')'
\set progress 'least(greatest(coalesce(a.progress, 0), 0), 100)::int'
\set message a.message
\set geo_score 'case when a.geo_score not in (''NaN'', ''Infinity'', ''-Infinity'') then a.geo_score end'
\set total_pages 'case when a.total_pages is not null then least(greatest(a.total_pages, 0), 2147483647)::int end'
\set error a.error
\set update_when 'old.id is distinct from new.id'
\set update_when :update_when ' or old.user_id is distinct from new.user_id'
\set update_when :update_when ' or old.user_email is distinct from new.user_email'
\set update_when :update_when ' or coalesce(lower(old.status::text collate "C"), ''pending'') is distinct from'
\set update_when :update_when ' coalesce(lower(new.status::text collate "C"), ''pending'')'
\set update_when :update_when ' or least(greatest(coalesce(old.progress, 0), 0), 100)::int is distinct from'
\set update_when :update_when ' least(greatest(coalesce(new.progress, 0), 0), 100)::int'
\set update_when :update_when ' or old.message is distinct from new.message'
\set update_when :update_when ' or old.geo_score is distinct from new.geo_score'
\set update_when :update_when ' or old.total_pages is distinct from new.total_pages'
\set update_when :update_when ' or old.error is distinct from new.error'
\set stamp 'auditstream 1 psql'
\set objects true
\set new_schema true
\set drop_view false
\set triggers true
\set drop_triggers false
\set keep_always ''
\set grants ''

-- Read committed, whatever the server's default: what another install did while this one waited has to be seen.
begin isolation level read committed read write;
-- A waiting "create trigger" makes every later writer of the table wait behind it, so it does not wait for long.
set local lock_timeout = :'lock_timeout';
set local standard_conforming_strings = on;
set local quote_all_identifiers = off;
-- One install at a time.
do $$ begin perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('auditstream', 0)); end $$;
set local search_path = pg_catalog, pg_temp;
\if :objects
\if :new_schema
create schema if not exists auditstream;
\endif

-- All that `auditstream serve` reads. Its columns are fixed; what a table calls or types differently is adapted here.
\if :drop_view
drop view auditstream.progress;
\endif
create or replace view auditstream.progress as
select
    a.:key::bigint as audit_id,
    :user_id as user_id,
    :user_email as user_email,
    :status as status,
    :progress as progress,
    :message as message,
    :geo_score as geo_score,
    :total_pages as total_pages,
    :error as error
from :table as a
-- Always true, and not idle: it tells the planner that an integer or smallint key equals the bigint shown above, so
-- that "join auditstream.progress p on p.audit_id = k" uses the index on the key itself.
where a.:key = a.:key::bigint;
\endif
\if :objects
\if :triggers

-- What somebody watches, by the instance of serve that watches it: a bigint under which its listening session holds a
-- shared advisory lock, so that rows of dead instances are known. Unlogged: no row is worth a flush, and serve registers
-- anew whenever it reconnects. A truncating vacuum would lock out the triggers that look.
create unlogged table if not exists auditstream.watch (
    audit_id bigint not null,
    instance bigint not null,
    primary key (audit_id, instance)
) with (vacuum_truncate = false);

-- For serve: forget what an instance no longer watches (null: all of it) and whatever dead instances left behind; says how
-- many rows the instance still has. A function, because the right to delete is a right to lock the table, and with it all
-- writers out.
create or replace function auditstream.unwatch(mine bigint, ids bigint[]) returns bigint
    language sql security definer
    set search_path = pg_catalog, pg_temp
as $auditstream$
    delete from auditstream.watch where instance = mine and (ids is null or audit_id = any (ids));
    delete from auditstream.watch where instance <> mine and instance <> all (array(
        select (classid::bigint << 32) | objid::bigint from pg_locks
        where locktype = 'advisory' and objsubid = 1 and granted
          and database = (select oid from pg_database where datname = current_database())));
    select count(*) from auditstream.watch where instance = mine
$auditstream$;
revoke all on function auditstream.unwatch(bigint, bigint[]) from public;

-- The payload is the key and never more: a notification of 8000 bytes would abort the application's transaction.
--
-- It rings only for what somebody watches: NOTIFY makes commits of the whole cluster wait for each other. A writer that
-- looks before serve has registered, and commits after serve's first read, has a transaction id by then: serve waits for
-- all that were open when it registered, and reads again.
--
-- Security definer, because the application's roles have no rights in our schema and need none. In place of a search_path
-- of its own, which would cost a fifth of a large update, every name says its schema.
create or replace function auditstream.notify_change() returns trigger
    language plpgsql security definer
as $auditstream$
declare
    always constant pg_catalog.bool := false; -- install --notify-always
    changed pg_catalog.int8;
    gap pg_catalog.text;
    low pg_catalog.int8;
    high pg_catalog.int8;
begin
    -- '*' asks the server to read everything that is watched.
    if tg_level operator(pg_catalog.=) 'STATEMENT' then
        perform pg_catalog.pg_notify('auditstream', '*');
        return null;
    end if;
    -- A subtransaction without writes costs next to nothing, and whatever goes wrong in it is no error of the application's.
    begin
        -- In an INSERT every field of old is null, in a DELETE every field of new.
        if old."id" is not null and new."id" is not null and old."id" operator(pg_catalog.<>) new."id" then
            perform pg_catalog.pg_notify('auditstream', old."id"::pg_catalog.text);
            perform pg_catalog.pg_notify('auditstream', new."id"::pg_catalog.text);
            return null;
        end if;
        changed := coalesce(new."id", old."id");
        if changed is null then
            return null;
        end if;
        -- Between these two keys nothing was watched when this transaction last looked. That holds until its end, because
        -- it has an id: what is registered meanwhile is read again then.
        gap := pg_catalog.current_setting('auditstream.gap', true);
        if gap operator(pg_catalog.<>) '' then
            if changed operator(pg_catalog.>) pg_catalog.split_part(gap, ' ', 1)::pg_catalog.int8
                and changed operator(pg_catalog.<) pg_catalog.split_part(gap, ' ', 2)::pg_catalog.int8 then
                return null;
            end if;
        end if;
        -- Repeatable read would look with an old snapshot, and serializable would be failed for what it has looked at.
        if not always and pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.~~) 'read %' then
            select pg_catalog.max(audit_id) into low from auditstream.watch
            where audit_id operator(pg_catalog.<=) changed;
            if low is null or low operator(pg_catalog.<) changed then
                select pg_catalog.min(audit_id) into high from auditstream.watch
                where audit_id operator(pg_catalog.>) changed;
                perform pg_catalog.set_config('auditstream.gap', pg_catalog.concat_ws(' ',
                    coalesce(low, '-9223372036854775808'), coalesce(high, '9223372036854775807')), true);
                return null;
            end if;
        end if;
    exception when others then
        -- The application has renamed its key, or somebody has taken away what this function needs.
        null;
    end;
    perform pg_catalog.pg_notify('auditstream', coalesce(changed::pg_catalog.text, '*'));
    return null;
end
$auditstream$;

\endif
\endif
:grants
\if :objects
\if :triggers

-- From here to the commit writers of the table wait (create trigger takes share row exclusive): keep this part last.
create or replace trigger auditstream_insert
    after insert on :table
    for each row execute function auditstream.notify_change();
create or replace trigger auditstream_update
    after update on :table
    for each row when (:update_when)
    execute function auditstream.notify_change();
create or replace trigger auditstream_delete
    after delete on :table
    for each row execute function auditstream.notify_change();
create or replace trigger auditstream_truncate
    after truncate on :table
    for each statement execute function auditstream.notify_change();
:keep_always
\endif
\if :drop_triggers

drop trigger if exists auditstream_insert on :table;
drop trigger if exists auditstream_update on :table;
drop trigger if exists auditstream_delete on :table;
drop trigger if exists auditstream_truncate on :table;
drop function if exists auditstream.notify_change();
drop function if exists auditstream.unwatch(bigint, bigint[]);
drop table if exists auditstream.watch;
\endif

-- What was installed and what came of it: a second install sees from the catalog alone that nothing has to change, and
-- repairs what somebody dropped, disabled or altered.
comment on view auditstream.progress is :'stamp';
do $stamp$
begin
    execute pg_catalog.format('comment on view auditstream.progress is %L', pg_catalog.concat_ws(' ',
        pg_catalog.obj_description('auditstream.progress'::pg_catalog.regclass, 'pg_class'), (
-- state: install reads it with this same query
select pg_catalog.md5(pg_catalog.concat_ws(' ', pg_catalog.pg_get_viewdef(v.oid), v.reloptions::text,
    (select pg_catalog.string_agg(pg_catalog.pg_get_functiondef(p.oid), ' ' order by p.proname)
     from pg_catalog.pg_proc p
     where p.pronamespace = v.relnamespace and p.proname in ('notify_change', 'unwatch')),
    (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', c.relname, c.relkind, c.relpersistence, c.reloptions::text), ' '
        order by c.relname)
     from pg_catalog.pg_class c
     where c.relnamespace = v.relnamespace and c.relname in ('watch', 'watch_pkey')),
    -- Of a partitioned table's copies only those that were switched off: partitions come and go.
    (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', pg_catalog.pg_get_triggerdef(t.oid),
        case when t.tgenabled in ('O', 'A') then 'enabled' else t.tgenabled::text end), ' '
        order by t.tgrelid::pg_catalog.regclass::text collate "C", t.tgname)
     from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid
     where p.pronamespace = v.relnamespace and p.proname = 'notify_change'
       and (t.tgparentid = 0 or t.tgenabled not in ('O', 'A')))))
from pg_catalog.pg_class v
where v.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = 'auditstream')
  and v.relname = 'progress'
-- end of state
    )));
end
$stamp$;
\endif
commit;
