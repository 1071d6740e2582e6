create type minion_state as enum ('inactive', 'active', 'failed', 'finished');
create table minion_jobs (
    id bigserial primary key, args jsonb not null check (jsonb_typeof(args) = 'array'), attempts int not null default 1, created timestamptz not null default now(), delayed timestamptz not null, expires timestamptz,
    finished timestamptz, lax bool not null default false, notes jsonb not null default '{}' check (jsonb_typeof(notes) = 'object'), parents bigint[] not null default '{}', priority int not null,
    queue text not null default 'default', result jsonb, retried timestamptz, retries int not null default 0, started timestamptz, state minion_state not null default 'inactive',
    task text not null, worker bigint
);

-- life: finished, after a failed attempt, which makes it wait again in a second transaction
insert into minion_jobs (task, args, attempts, delayed, priority) values ('export', '[{"user_id": "alice"}]', 2, now(), 0) returning id;
--> {"id":KEY,"status":"pending","progress":0,"task":"export"}
update minion_jobs set state = 'active', started = now(), worker = 1 where id = KEY;
--> {"id":KEY,"status":"running","progress":0,"task":"export"}
update minion_jobs set notes = jsonb_strip_nulls(notes || '{"progress": "41%", "stage": "reading"}') where id = KEY;
--> {"id":KEY,"status":"running","progress":41,"message":"reading","task":"export"}
update minion_jobs set state = 'failed', finished = now(), result = '"Disk is full"' where id = KEY;
--> {"id":KEY,"status":"pending","progress":41,"message":"reading","task":"export","result":"Disk is full"}
update minion_jobs set state = 'inactive', attempts = 1, delayed = now(), retries = retries + 1, retried = now() where id = KEY;
update minion_jobs set state = 'active', started = now(), worker = 1 where id = KEY;
--> {"id":KEY,"status":"running","progress":41,"message":"reading","task":"export","result":"Disk is full"}
update minion_jobs set notes = jsonb_strip_nulls(notes || '{"progress": 100, "stage": null}') where id = KEY;
--> {"id":KEY,"status":"running","progress":100,"task":"export","result":"Disk is full"}
update minion_jobs set state = 'finished', finished = now(), result = '"done"' where id = KEY;
--> {"id":KEY,"status":"completed","progress":100,"task":"export","result":"done"}
-- life: failed, with no attempt left
insert into minion_jobs (task, args, delayed, priority) values ('export', '[{"user_id": "alice"}]', now(), 0) returning id;
--> {"id":KEY,"status":"pending","progress":0,"task":"export"}
update minion_jobs set state = 'active', started = now(), worker = 1 where id = KEY;
--> {"id":KEY,"status":"running","progress":0,"task":"export"}
update minion_jobs set state = 'failed', finished = now(), result = '"Disk is full"' where id = KEY;
--> {"id":KEY,"status":"failed","progress":0,"task":"export","result":"Disk is full"}
