create type job_status as enum ('new', 'processed', 'failed');
create table neoq_dead_jobs (
    id serial not null, fingerprint text not null, queue text not null, status job_status not null default 'failed', payload jsonb, retries integer,
    max_retries integer, created_at timestamptz default now(), error text, deadline timestamptz
);
create table neoq_jobs (
    id bigserial not null, fingerprint text not null, queue text not null, status job_status not null default 'new', payload jsonb, retries integer default 0,
    max_retries integer default 23, run_after timestamptz default now(), ran_at timestamptz, created_at timestamptz default now(), error text, deadline timestamptz
);
create index on neoq_jobs (id, status, run_after);
create index on neoq_jobs (queue, status, run_after);
create unique index on neoq_jobs (queue, fingerprint, status) where not (status = 'processed');
create unique index on neoq_jobs (queue, status, fingerprint, ran_at);

-- life: completed after a retry
insert into neoq_jobs (queue, fingerprint, payload) values ('exports', 'a', '{"user_id": "alice"}') returning id;
--> {"id":KEY,"status":"pending","progress":0,"queue":"exports","retries":0}
update neoq_jobs set status = 'failed', ran_at = now(), retries = 1, error = 'late', run_after = now() where id = KEY;
--> {"id":KEY,"status":"pending","progress":0,"queue":"exports","retries":1}
update neoq_jobs set status = 'processed', ran_at = now(), error = '' where id = KEY;
--> {"id":KEY,"status":"completed","progress":100,"queue":"exports","retries":1}
-- life: failed for ever, which moves the job to the dead ones
insert into neoq_jobs (queue, fingerprint, payload, max_retries) values ('exports', 'b', '{"user_id": "alice"}', 0) returning id;
--> {"id":KEY,"status":"pending","progress":0,"queue":"exports","retries":0}
begin;
delete from neoq_jobs where id = KEY;
insert into neoq_dead_jobs (id, queue, fingerprint, payload, retries, max_retries, error) values (KEY, 'exports', 'b', '{"user_id": "alice"}', 0, 0, 'no');
commit;
--> {"id":KEY,"status":"failed","progress":0,"queue":"exports","retries":0}
