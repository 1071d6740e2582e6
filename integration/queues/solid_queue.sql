create table solid_queue_jobs (
    id bigserial primary key, queue_name character varying not null, class_name character varying not null, arguments text, priority integer not null default 0,
    active_job_id character varying, scheduled_at timestamp, finished_at timestamp, concurrency_key character varying, created_at timestamp not null default now(),
    updated_at timestamp not null default now(), batch_id bigint
);
create table solid_queue_failed_executions (
    id bigserial primary key, job_id bigint not null unique references solid_queue_jobs on delete cascade, error text, created_at timestamp not null default now()
);
create table solid_queue_claimed_executions (
    id bigserial primary key, job_id bigint not null unique references solid_queue_jobs on delete cascade, process_id bigint, created_at timestamp not null default now()
);
-- what the application has about its jobs
create table downloads (id bigserial primary key, user_id text not null, active_job_id character varying not null unique);

-- life: completed, after it was tried by hand again
insert into downloads (user_id, active_job_id) values ('alice', 'a');
insert into solid_queue_jobs (queue_name, class_name, active_job_id) values ('default', 'DownloadJob', 'a') returning id;
--> {"id":KEY,"status":"pending","progress":0,"class_name":"DownloadJob"}
insert into solid_queue_claimed_executions (job_id, process_id) values (KEY, 1);
--> {"id":KEY,"status":"running","progress":0,"class_name":"DownloadJob"}
delete from solid_queue_claimed_executions where job_id = KEY;
--> {"id":KEY,"status":"pending","progress":0,"class_name":"DownloadJob"}
begin; insert into solid_queue_claimed_executions (job_id, process_id) values (KEY, 1); update solid_queue_jobs set updated_at = now() where id = KEY; commit;
--> {"id":KEY,"status":"running","progress":0,"class_name":"DownloadJob"}
begin; delete from solid_queue_claimed_executions where job_id = KEY; update solid_queue_jobs set finished_at = now() where id = KEY; commit;
--> {"id":KEY,"status":"completed","progress":100,"class_name":"DownloadJob"}
-- life: failed
insert into downloads (user_id, active_job_id) values ('alice', 'b');
insert into solid_queue_jobs (queue_name, class_name, active_job_id) values ('default', 'DownloadJob', 'b') returning id;
--> {"id":KEY,"status":"pending","progress":0,"class_name":"DownloadJob"}
insert into solid_queue_claimed_executions (job_id, process_id) values (KEY, 1);
--> {"id":KEY,"status":"running","progress":0,"class_name":"DownloadJob"}
begin; delete from solid_queue_claimed_executions where job_id = KEY; insert into solid_queue_failed_executions (job_id, error) values (KEY, '{"message": "no"}'); commit;
--> {"id":KEY,"status":"failed","progress":0,"class_name":"DownloadJob","error":"{\"message\": \"no\"}"}
