-- mine: {"sub":"7"}
create schema hangfire;
create table hangfire.job (
    id bigserial primary key, stateid bigint, statename text, invocationdata jsonb not null, arguments jsonb not null, createdat timestamptz not null,
    expireat timestamptz, updatecount integer not null default 0
);

-- life: succeeded
insert into hangfire.job (invocationdata, arguments, createdat, expireat)
    values ('{"Type": "App.Exports", "Method": "Run", "ParameterTypes": "[]", "Arguments": null}', '["7", "\"pdf\""]', now(), now()) returning id;
--> {"id":KEY,"status":"pending","progress":0,"method":"Run"}
update hangfire.job set statename = 'Enqueued', stateid = 1, expireat = null where id = KEY;
update hangfire.job set statename = 'Processing', stateid = 2 where id = KEY;
--> {"id":KEY,"status":"running","progress":0,"method":"Run"}
update hangfire.job set statename = 'Succeeded', stateid = 3, expireat = now() where id = KEY;
--> {"id":KEY,"status":"completed","progress":100,"method":"Run"}
-- life: failed, after a retry
insert into hangfire.job (statename, invocationdata, arguments, createdat) values ('Processing', '{"Method": "Run"}', '["7"]', now()) returning id;
--> {"id":KEY,"status":"running","progress":0,"method":"Run"}
update hangfire.job set statename = 'Scheduled', stateid = 5 where id = KEY;
--> {"id":KEY,"status":"pending","progress":0,"method":"Run"}
update hangfire.job set statename = 'Failed', stateid = 6 where id = KEY;
--> {"id":KEY,"status":"failed","progress":0,"method":"Run"}
-- life: deleted, which is a state
insert into hangfire.job (statename, invocationdata, arguments, createdat) values ('Awaiting', '{"Method": "Run"}', '["7"]', now()) returning id;
--> {"id":KEY,"status":"pending","progress":0,"method":"Run"}
update hangfire.job set statename = 'Deleted', stateid = 7 where id = KEY;
--> {"id":KEY,"status":"cancelled","progress":0,"method":"Run"}
