-- install.sql: the view auditstream.progress and the triggers that notify of its changes. Safe to run twice.
--
--     psql -v ON_ERROR_STOP=1 -f install.sql                   adopts public.audits, the table of audits.sql
--     psql -v ON_ERROR_STOP=1 -v table=app.audits -f ...       adopts the same table under another name
--
-- `auditstream install` adopts any other table: it reads the table's columns from the catalog, fills in the variables below, leaves out the
-- lines that start with a backslash, and runs the rest (`--dry-run` prints it).
\if :{?table}
\else
    \set table public.audits
\endif
\set lock_wait 30s \set lock_timeout 200ms
\set feed audits \set view progress \set id audit_id \set t_insert auditstream_insert \set t_update auditstream_update \set t_rekey auditstream_rekey \set t_owner auditstream_owner
\set t_delete auditstream_delete \set t_truncate auditstream_truncate \set others '{}'
\set key id \set user_id a.user_id \set user_email a.user_email \set message a.message \set error a.error
\set status 'coalesce(btrim(lower(a.status::text collate "C"), E'' \\t\\r\\n''), ''pending'')'
\set progress 'least(greatest(coalesce(a.progress, 0), 0), 100)::int'
\set geo_score 'case when a.geo_score not in (''NaN'', ''Infinity'', ''-Infinity'') then a.geo_score end'
\set total_pages 'case when a.total_pages is not null then least(greatest(a.total_pages, 0), 2147483647)::int end'
\set from :table ' as a' \set where 'a.' :key ' = a.' :key '::bigint' \set more '' \set shown_key 'a.' :key '::bigint' \set same 'old.' :key ' operator(pg_catalog.=) new.' :key
\set new_when when \set old_when when \set new_row 'new.' :key '::pg_catalog.text' \set old_row 'old.' :key '::pg_catalog.text'
\set new_hash 'pg_catalog.hashint8(new.' :key '::pg_catalog.int8)' \set old_hash 'pg_catalog.hashint8(old.' :key '::pg_catalog.int8)'
-- Advisory locks say what is watched: see docs/watch-as-locks.md. class is their first number; buckets is how many there are, which is a sixth
-- of the server's lock table at most.
\set class 1635087465 \set buckets 1024 \set mask 1023
select coalesce((select n from pg_class c, lateral (select substring(pg_get_viewdef(c.oid) from '([0-9]{1,4}) AS buckets')::int as n) x
            where c.oid = to_regclass('auditstream.feeds') and n between 64 and 4096 and n & (n - 1) = 0),
        1 << length(ltrim(least(greatest(locks / 6, 64), 4096)::bit(13)::text, '0')) - 1) as buckets
    from (select current_setting('max_locks_per_transaction')::int
        * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) as locks) s \gset
select :buckets - 1 as mask \gset
\set owners 'user_id, user_email' \set has_owners true \set drop_owner false
\set rings '' \set one_ring false \set reports false \set report ''
\set options '{"columns": {}, "roles": [], "triggers": true, "always": false}' \set keep_always '' \set grants '' \set take_over ''
\set objects true \set triggers true \set last true \set new_schema true \set new_feeds false \set drop_view false \set drop_triggers false
select to_regclass('auditstream.watch') is not null or to_regproc('auditstream.notify_change') is not null
    or to_regproc('auditstream.unwatch') is not null or to_regproc('auditstream.prepare_watch') is not null
    or exists (select from pg_trigger where tgname = 'auditstream_key' and tgfoid = to_regproc('auditstream.changed')) as old_schema \gset

-- Read committed, whatever the server's default: this install must see what another one did while it waited.
begin isolation level read committed read write;
set local standard_conforming_strings = on; set local quote_all_identifiers = off;
-- One install at a time, in the order in which they come. Nobody but other installs waits for this lock.
set local lock_timeout = :'lock_wait';
do $$ begin perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('auditstream', 0)); end $$;
-- While "create trigger" waits for a lock, all later writers of the table wait behind it, so its wait must be short.
set local lock_timeout = :'lock_timeout';
set local search_path = pg_catalog, pg_temp;
\if :objects
-- An earlier version must not replace a later one.
do $$ begin
    if substring(obj_description(to_regclass('auditstream.progress'), 'pg_class') from '^auditstream ([0-9]{1,9}) ')::int > 5 then
        raise 'the schema auditstream is newer than this install.sql, which is of version 5' using hint = 'Take the newer one.';
    end if;
end $$;
:take_over
-- The owner of an object in the schema can replace it later, and then writers and serve run it. So the owner must be trusted.
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

-- The options of the install and the objects that it made. Later installs, doctor and serve compare them with the catalog. The rows stay when the
-- table or the views are dropped. To write them must run no code of others, so a table that others own, have changed or may change is
-- replaced by a new one.
do $choices$ begin
    if to_regclass('auditstream.choices') is not null then
        lock table auditstream.choices in share row exclusive mode;
        if not exists (select from pg_class c where c.oid = to_regclass('auditstream.choices') and c.relkind = 'r' and c.relpersistence = 'p' and c.relowner = to_regrole(quote_ident(current_user))
                and not (c.relrowsecurity or c.relforcerowsecurity or c.relhasrules or c.relhastriggers or c.relhassubclass)
                and (select count(*) from pg_index where indrelid = c.oid) = 1
                and array(select a.attname || ' ' || format_type(a.atttypid, a.atttypmod) from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum)
                    = '{feed text,options jsonb,made jsonb}'
                and not exists (select from pg_attribute a where a.attrelid = c.oid and (a.atthasdef or a.attacl is not null))
                and not exists (select from pg_constraint k where k.conrelid = c.oid and k.contype not in ('p', 'n'))
                and not exists (select from aclexplode(c.relacl) x where x.grantee <> c.relowner and x.privilege_type <> 'SELECT')) then
            drop table auditstream.choices;
        end if;
    end if;
end $choices$;
create table if not exists auditstream.choices (feed text primary key, options jsonb not null, made jsonb not null);
-- Revoke what default privileges have granted.
do $$ declare acl text; begin
    for acl in select format('revoke all on auditstream.choices from %s', case when x.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(x.grantee)) end)
        from pg_class c, aclexplode(c.relacl) x where c.oid = 'auditstream.choices'::regclass and x.grantee <> c.relowner and x.privilege_type <> 'SELECT' loop
        execute acl;
    end loop;
end $$;

-- The only view of the rows that `auditstream serve` reads. Its columns are fixed; it adapts a table's other names and types.
\if :drop_view
drop view auditstream.:view;
\endif
create or replace view auditstream.:view as
select :shown_key as :id, :user_id as user_id, :user_email as user_email, :status as status, :progress as progress,
    :message as message, :geo_score as geo_score, :total_pages as total_pages, :error as error:more
from :from
-- With integer keys the condition is always true but not useless: it tells the planner that an integer or smallint key equals the bigint that the
-- view shows, so that reads use its index.
where :where;
\if :reports
-- Writes one row with the rights of its caller. Arguments that a later call leaves out keep their values, except the message. With status failed,
-- the message becomes the error. Viewers see the change when the caller's transaction commits.
create or replace function auditstream.:report(key text, progress double precision, message text default null, status text default null, user_id text default null, user_email text default null)
returns void language sql begin atomic
    insert into :table as t (id, progress, status, message, error, user_id, user_email)
    select $1, coalesce(p.whole, 0), s.status, case when s.status <> 'failed' then $3 end, case when s.status = 'failed' then $3 end, $5, $6
    from (values (least(greatest(floor(nullif($2, 'NaN')), 0), 100)::int)) p (whole), lateral (values (coalesce($4, case when p.whole >= 100 then 'completed' else 'running' end))) s (status)
    on conflict (id) do update set progress = case when $2 is null then t.progress else excluded.progress end, status = excluded.status, message = excluded.message, error = excluded.error,
        user_id = coalesce(excluded.user_id, t.user_id), user_email = coalesce(excluded.user_email, t.user_email), updated_at = now();
end;
create or replace function auditstream.:report(key bigint, progress double precision, message text default null, status text default null, user_id text default null, user_email text default null)
returns void language sql begin atomic
    select auditstream.:report($1::text, $2, $3, $4, $5, $6);
end;
grant execute on function auditstream.:report(text, double precision, text, text, text, text), auditstream.:report(bigint, double precision, text, text, text, text) to public;
\endif
\if :triggers
\if :new_feeds
drop view if exists auditstream.feeds;
\endif
-- Which locks serve must hold for the triggers' conditions. All feeds share them.
create or replace view auditstream.feeds as
select 'audits'::text as feed, :class::int as class, :buckets::int as buckets;

-- '*' asks the server to read everything that is watched. The function runs with the rights of the application's own statement.
create or replace function auditstream.changed() returns trigger language plpgsql as $auditstream$
begin
    perform pg_catalog.pg_notify('auditstream', '*');
    return null;
end
$auditstream$;
-- PostgreSQL requires this right from a role that makes a partition. It is harmless, because the function runs with its caller's rights.
grant execute on function auditstream.changed() to public;
\endif
\endif
\if :objects
-- Our views have no rules and no triggers, and others may only read them. A former owner may have added some.
set local auditstream.view = :'view';
do $$ declare change text; begin
    for change in
        select format('drop rule %I on %s', w.rulename, c.oid::regclass) from pg_class c join pg_rewrite w on w.ev_class = c.oid
            where c.relnamespace = 'auditstream'::regnamespace and c.relkind = 'v' and c.relname in (current_setting('auditstream.view'), 'feeds') and w.rulename <> '_RETURN'
        union all
        select format('drop trigger %I on %s', t.tgname, c.oid::regclass) from pg_class c join pg_trigger t on t.tgrelid = c.oid
            where c.relnamespace = 'auditstream'::regnamespace and c.relkind = 'v' and c.relname in (current_setting('auditstream.view'), 'feeds')
        union all
        select distinct format('revoke %s on %s from %s cascade', x.privilege_type, c.oid::regclass, case when x.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(x.grantee)) end)
            from pg_class c, aclexplode(c.relacl) x where c.relnamespace = 'auditstream'::regnamespace and c.relkind = 'v' and c.relname in (current_setting('auditstream.view'), 'feeds')
            and x.grantee <> c.relowner and x.privilege_type <> 'SELECT' loop
        execute change;
    end loop;
end $$;
\endif
:grants
\if :objects
\if :triggers

-- From here to the commit, writers of the table wait, because create trigger takes a share row exclusive lock. Keep this part last.
-- PostgreSQL evaluates the condition of a trigger for each row right after the change, with the writer's rights. The condition tries the lock
-- of the row's bucket. If it gets the lock, nobody watches, and it releases the lock at once. Otherwise the condition itself notifies. It
-- is never true, so no trigger is queued, and it cannot raise an error. A row without a key is ignored: the lock functions return null for
-- null. The condition knows columns by their number, so it follows a renamed column. Every statement parses the whole condition, which
-- costs more than the locks. So it has no test of its own for null, and the old key of an update has a trigger of its own, whose condition
-- is parsed only when a statement sets the key.
create or replace trigger :t_insert after insert on :table for each row when (
    case :new_when pg_catalog.pg_try_advisory_lock(:class, :buckets operator(pg_catalog.+) (:new_hash operator(pg_catalog.&) 63)) is not false then not pg_catalog.pg_advisory_unlock(:class, :buckets operator(pg_catalog.+) (:new_hash operator(pg_catalog.&) 63))
         else pg_catalog.pg_notify('auditstream', :new_row) is null end
) execute function auditstream.changed();
\if :drop_owner
drop trigger if exists :t_owner on :table;
\endif
\if :has_owners
create or replace trigger :t_owner after update of :owners on :table for each row when (
    case :new_when pg_catalog.pg_try_advisory_lock(:class, :buckets operator(pg_catalog.+) (:new_hash operator(pg_catalog.&) 63)) is not false then not pg_catalog.pg_advisory_unlock(:class, :buckets operator(pg_catalog.+) (:new_hash operator(pg_catalog.&) 63))
         else pg_catalog.pg_notify('auditstream', :new_row) is null end
) execute function auditstream.changed();
\endif
-- A ring's table has these four, too, and the trigger for inserts below.
create or replace trigger :t_update after update on :table for each row when (
    case :new_when pg_catalog.pg_try_advisory_lock(:class, :new_hash operator(pg_catalog.&) :mask) is not false then not pg_catalog.pg_advisory_unlock(:class, :new_hash operator(pg_catalog.&) :mask)
         else pg_catalog.pg_notify('auditstream', :new_row) is null end
) execute function auditstream.changed();
create or replace trigger :t_rekey after update of :key on :table for each row when (
    case when :same then false
         :old_when pg_catalog.pg_try_advisory_lock(:class, :old_hash operator(pg_catalog.&) :mask) is not false then not pg_catalog.pg_advisory_unlock(:class, :old_hash operator(pg_catalog.&) :mask)
         else pg_catalog.pg_notify('auditstream', :old_row) is null end
) execute function auditstream.changed();
create or replace trigger :t_delete after delete on :table for each row when (
    case :old_when pg_catalog.pg_try_advisory_lock(:class, :old_hash operator(pg_catalog.&) :mask) is not false then not pg_catalog.pg_advisory_unlock(:class, :old_hash operator(pg_catalog.&) :mask)
         else pg_catalog.pg_notify('auditstream', :old_row) is null end
) execute function auditstream.changed();
create or replace trigger :t_truncate after truncate on :table for each statement execute function auditstream.changed();
:rings
\if :one_ring
-- of a ring alone
create or replace trigger :t_insert after insert on :table for each row when (
    case :new_when pg_catalog.pg_try_advisory_lock(:class, :new_hash operator(pg_catalog.&) :mask) is not false then not pg_catalog.pg_advisory_unlock(:class, :new_hash operator(pg_catalog.&) :mask)
         else pg_catalog.pg_notify('auditstream', :new_row) is null end
) execute function auditstream.changed();
\endif
:keep_always
\endif
\if :drop_triggers
drop trigger if exists :t_insert on :table; drop trigger if exists :t_update on :table; drop trigger if exists :t_rekey on :table;
drop trigger if exists :t_delete on :table; drop trigger if exists :t_truncate on :table; drop trigger if exists :t_owner on :table;
\if :last
drop view if exists auditstream.feeds; drop function if exists auditstream.changed();
\endif
\endif
\if :old_schema
-- The objects of versions up to 4. To drop a trigger needs a lock that also waits for readers. If the lock is not free, the trigger stays without
-- an effect, and the next install drops it.
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

comment on view auditstream.:view is 'auditstream 5 by install.sql; auditstream.choices has what was chosen';
insert into auditstream.choices as c (feed, options, made) values (:'feed', :'options', (
-- state: later installs, doctor and serve compare the result of this query with the stored one
-- A view and a trigger have two checksums: that of the written definition survives a dump and restore, that of PostgreSQL's tree survives renames.
with n as (
    select oid, nspowner from pg_catalog.pg_namespace where nspname = 'auditstream'
), c as (
    select c.* from pg_catalog.pg_class c join n on n.oid = c.relnamespace where (c.relname, c.relkind) in ((:'view', 'v'), ('feeds', 'v'), ('choices', 'r'))
), rules as (
    select c.relname, w.oid, w.rulename, w.ev_action::text || w.ev_enabled::text as tree, d.tables
    from c join pg_catalog.pg_rewrite w on w.ev_class = c.oid cross join lateral (
        select pg_catalog.array_agg(distinct d.refobjid) as tables from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
            and d.objid = w.oid and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> c.oid) d
), f as (
    select p.* from pg_catalog.pg_proc p join n on n.oid = p.pronamespace where p.proname = 'changed' and p.pronargs = 0
), r as (
    select r.*, rn.nspname from pg_catalog.pg_class r join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
    where r.oid = any ((select tables from rules where relname = :'view' and rulename = '_RETURN')::oid[]) and (array[r.oid] = (select tables from rules where relname = :'view' and rulename = '_RETURN')
        or exists (select from pg_catalog.pg_trigger t join f on f.oid = t.tgfoid where t.tgrelid = r.oid and t.tgname = :'t_truncate'))
), sources as ( -- for each column of the view the only column of the table that it uses; columns of joined tables are left out
    select m[2] as name, a.attnum, a.attname
    from rules cross join pg_catalog.regexp_matches(tree, '[{]TARGETENTRY [:]expr (.*?) [:]resno [0-9]+ [:]resname ([a-z_]+) ', 'g') m
        cross join lateral (select pg_catalog.min(v[2]::int2) as low, pg_catalog.max(v[2]::int2) as high, pg_catalog.max(v[1]::int) as no
            from pg_catalog.regexp_matches(m[1], '[:]varno ([0-9]+) [:]varattno ([0-9]+) ', 'g') v) v
        cross join lateral (select pg_catalog.min(v[1]::int) as first from pg_catalog.regexp_matches(tree, '[:]varno ([0-9]+) [:]varattno', 'g') v) t
        join r on true join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum = v.low and v.low = v.high and v.no = t.first
    where rules.relname = :'view' and rulename = '_RETURN' and tree !~ '[:]subquery [{]' -- with a subquery the sources are not known
), indexes as (
    select i.indisunique and i.indnkeyatts = 1 as alone from pg_catalog.pg_index i join r on r.oid = i.indrelid join sources s on s.attnum = i.indkey[0] and s.name = :'id'
    where i.indisvalid and i.indpred is null
), objects as (
    select 'schema auditstream' as name, n.nspowner as owner, '' as text, '' as tree, '' as off from n
    union all
    select 'view auditstream.' || c.relname, c.relowner,
        pg_catalog.concat_ws(' ', c.reloptions::text, (select pg_catalog.string_agg(pg_catalog.pg_get_ruledef(w.oid), ' ' order by w.rulename) from rules w where w.relname = c.relname)),
        pg_catalog.concat_ws(' ', c.reloptions::text, (select pg_catalog.string_agg(w.tree, ' ' order by w.rulename) from rules w where w.relname = c.relname),
            (select pg_catalog.string_agg(a.attname, ' ' order by a.attnum) from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0)), ''
    from c where c.relkind = 'v'
    union all
    select 'table auditstream.choices', c.relowner, pg_catalog.concat_ws(' ', c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.relhasrules, c.relhassubclass,
        (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attname, a.atttypid, a.atthasdef, a.attacl), ',' order by a.attname)
            from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
        exists (select from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype not in ('p', 'n')),
        (select pg_catalog.string_agg(t.tgname, ' ') from pg_catalog.pg_trigger t where t.tgrelid = c.oid), (select pg_catalog.count(*) from pg_catalog.pg_index i where i.indrelid = c.oid),
        (select pg_catalog.string_agg(x.privilege_type, ' ' order by x.privilege_type) from pg_catalog.aclexplode(c.relacl) x where x.grantee <> c.relowner and x.privilege_type <> 'SELECT')), null, ''
    from c where c.relkind = 'r'
    union all
    select 'function auditstream.changed()', f.proowner, pg_catalog.concat_ws(' ', pg_catalog.pg_get_functiondef(f.oid),
        exists (select from pg_catalog.aclexplode(coalesce(f.proacl, pg_catalog.acldefault('f', f.proowner))) x where x.grantee = 0)), null, '' from f
    union all
    select 'function ' || p.oid::pg_catalog.regprocedure, p.proowner, pg_catalog.pg_get_functiondef(p.oid), pg_catalog.concat_ws(' ', p.prosqlbody::text, p.prosrc, p.prosecdef, p.proconfig::text, p.provolatile), ''
    from pg_catalog.pg_proc p join n on n.oid = p.pronamespace where p.proname = :'report' and p.prokind = 'f' and p.pronargs = 6
    union all -- of the copies on partitions only the disabled ones, because partitions come and go
    select pg_catalog.concat_ws(' on ', 'trigger ' || t.tgname, case when t.tgrelid <> (select oid from r) and exists (select from pg_catalog.pg_trigger o, r where o.tgrelid = r.oid and o.tgfoid = f.oid) then t.tgrelid::pg_catalog.regclass::text end), null,
        pg_catalog.pg_get_triggerdef(t.oid), pg_catalog.concat_ws(' ', t.tgtype, t.tgattr::text, t.tgqual::text, t.tgdeferrable, t.tgnargs),
        case t.tgenabled when 'D' then 'disabled' when 'R' then 'replica only' else '' end
    from pg_catalog.pg_trigger t join f on f.oid = t.tgfoid join pg_catalog.pg_class tt on tt.oid = t.tgrelid and tt.relpersistence <> 't' where (t.tgparentid = 0 or t.tgenabled in ('D', 'R')) and t.tgname <> all (:'others'::text[])
)
select pg_catalog.jsonb_build_object('installer', current_user, 'server', pg_catalog.current_setting('server_version_num')::int / 10000,
    'schema', (select nspname from r), 'name', (select relname from r), 'owner', (select pg_catalog.pg_get_userbyid(relowner) from r),
    'sources', (select coalesce(pg_catalog.jsonb_object_agg(s.name, s.attname), '{}') from sources s),
    'indexed', exists (select from indexes), 'unique', exists (select from indexes where alone),
    'objects', (select coalesce(pg_catalog.jsonb_object_agg(o.name, pg_catalog.jsonb_build_object('owner', coalesce(pg_catalog.pg_get_userbyid(o.owner), ''),
        'super', coalesce((select u.rolsuper from pg_catalog.pg_roles u where u.oid = o.owner), false),
        'text', pg_catalog.md5(o.text), 'tree', pg_catalog.md5(coalesce(o.tree, o.text)), 'off', o.off)), '{}') from objects o))
-- end of state
)) on conflict (feed) do update set options = excluded.options, made = excluded.made;
\endif
commit;
\if :objects
\if :triggers
-- On this notification serve reads the list of feeds and all that is watched. It is a transaction of its own, because in the whole server only one
-- transaction that notifies commits at a time, and the table must not stay locked meanwhile. begin and commit are for psql without
-- AUTOCOMMIT.
begin;
notify auditstream, '*';
commit;
\endif
\endif
