create type procrastinate_job_status as enum ('todo', 'doing', 'succeeded', 'failed', 'cancelled', 'aborting', 'aborted');
create table procrastinate_workers (id bigint primary key generated always as identity, last_heartbeat timestamptz not null default now());
insert into procrastinate_workers default values;
create table procrastinate_jobs (
    id bigserial primary key, queue_name character varying(128) not null, task_name character varying(128) not null, priority integer not null default 0,
    lock text, queueing_lock text, args jsonb not null default '{}', status procrastinate_job_status not null default 'todo', scheduled_at timestamptz,
    attempts integer not null default 0, abort_requested boolean not null default false,
    worker_id bigint references procrastinate_workers on delete set null, check (not (status = 'todo' and abort_requested))
);

-- life: completed after a retry
insert into procrastinate_jobs (queue_name, task_name, args) values ('default', 'app.export', '{"user_id": "alice"}') returning id;
--> {"id":KEY,"status":"pending","progress":0,"task_name":"app.export","attempts":0}
update procrastinate_jobs set status = 'doing', worker_id = 1 where id = KEY;
--> {"id":KEY,"status":"running","progress":0,"task_name":"app.export","attempts":0}
update procrastinate_jobs set progress = 40 where id = KEY;
--> {"id":KEY,"status":"running","progress":40,"task_name":"app.export","attempts":0}
update procrastinate_jobs set status = 'todo', attempts = 1, scheduled_at = now() where id = KEY;
--> {"id":KEY,"status":"pending","progress":40,"task_name":"app.export","attempts":1}
update procrastinate_jobs set status = 'doing', worker_id = 1 where id = KEY;
--> {"id":KEY,"status":"running","progress":40,"task_name":"app.export","attempts":1}
update procrastinate_jobs set progress = 100 where id = KEY;
--> {"id":KEY,"status":"running","progress":100,"task_name":"app.export","attempts":1}
update procrastinate_jobs set status = 'succeeded', attempts = 2 where id = KEY;
--> {"id":KEY,"status":"completed","progress":100,"task_name":"app.export","attempts":2}
-- life: failed
insert into procrastinate_jobs (queue_name, task_name, args) values ('default', 'app.export', '{"user_id": "alice"}') returning id;
--> {"id":KEY,"status":"pending","progress":0,"task_name":"app.export","attempts":0}
update procrastinate_jobs set status = 'doing', worker_id = 1 where id = KEY;
--> {"id":KEY,"status":"running","progress":0,"task_name":"app.export","attempts":0}
update procrastinate_jobs set status = 'failed', attempts = 1 where id = KEY;
--> {"id":KEY,"status":"failed","progress":0,"task_name":"app.export","attempts":1}
-- life: cancelled
insert into procrastinate_jobs (queue_name, task_name, args) values ('default', 'app.export', '{"user_id": "alice"}') returning id;
--> {"id":KEY,"status":"pending","progress":0,"task_name":"app.export","attempts":0}
update procrastinate_jobs set status = 'cancelled' where id = KEY;
--> {"id":KEY,"status":"cancelled","progress":0,"task_name":"app.export","attempts":0}
-- life: aborted
insert into procrastinate_jobs (queue_name, task_name, args, status) values ('default', 'app.export', '{"user_id": "alice"}', 'doing') returning id;
--> {"id":KEY,"status":"running","progress":0,"task_name":"app.export","attempts":0}
update procrastinate_jobs set abort_requested = true where id = KEY;
update procrastinate_jobs set status = 'aborted', abort_requested = false, attempts = 1 where id = KEY;
--> {"id":KEY,"status":"aborted","progress":0,"task_name":"app.export","attempts":1}
