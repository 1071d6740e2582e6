create type minion_state as enum ('inactive', 'active', 'failed', 'finished');
create table minion_jobs (
    id bigserial primary key, args jsonb not null, attempts int not null default 1, created timestamptz not null default now(), delayed timestamptz not null default now(), expires timestamptz,
    finished timestamptz, lax bool not null default false, notes jsonb not null default '{}', parents bigint[] not null default '{}', priority int not null default 0,
    queue text not null default 'default', result jsonb, retried timestamptz, retries int not null default 0, started timestamptz, state minion_state not null default 'inactive',
    task text not null, worker bigint
);

-- life: finished, after a retry
insert into minion_jobs (task, args) values ('export', '[{"user_id": "alice"}]') returning id;
--> {"id":KEY,"status":"pending","progress":0,"task":"export"}
update minion_jobs set state = 'active', started = now(), worker = 1 where id = KEY;
--> {"id":KEY,"status":"running","progress":0,"task":"export"}
update minion_jobs set notes = notes || '{"progress": "41%", "stage": "reading"}' where id = KEY;
--> {"id":KEY,"status":"running","progress":41,"message":"reading","task":"export"}
update minion_jobs set state = 'inactive', retries = 1, retried = now() where id = KEY;
--> {"id":KEY,"status":"pending","progress":41,"message":"reading","task":"export"}
update minion_jobs set state = 'finished', finished = now(), notes = '{"progress": 100}', result = '"done"' where id = KEY;
--> {"id":KEY,"status":"completed","progress":100,"task":"export","result":"done"}
-- life: failed, after which attempts are made
insert into minion_jobs (task, args, state) values ('export', '[{"user_id": "alice"}]', 'active') returning id;
--> {"id":KEY,"status":"running","progress":0,"task":"export"}
update minion_jobs set state = 'failed', finished = now(), result = '"Disk is full"' where id = KEY;
--> {"id":KEY,"status":"failed","progress":0,"task":"export","result":"Disk is full"}
