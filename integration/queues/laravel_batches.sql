-- mine: {"sub":"42"}
create table job_batches (
    id character varying(255) primary key, name character varying(255) not null, total_jobs integer not null, pending_jobs integer not null, failed_jobs integer not null,
    failed_job_ids text not null, options text, cancelled_at integer, created_at integer not null, finished_at integer
);
-- what the application has about its batches
create table imports (id bigserial primary key, user_id bigint not null, batch_id character varying(255) not null unique);

-- life: completed
insert into imports (user_id, batch_id) values (42, '9b:1/ä,2');
insert into job_batches values ('9b:1/ä,2', 'Import', 7, 7, 0, '[]', null, null, 1, null) returning id;
--> {"id":"KEY","status":"running","progress":0,"name":"Import","failed_jobs":0,"total_jobs":7}
update job_batches set pending_jobs = 5 where id = 'KEY';
--> {"id":"KEY","status":"running","progress":28,"name":"Import","failed_jobs":0,"total_jobs":7}
update job_batches set pending_jobs = 0 where id = 'KEY';
--> {"id":"KEY","status":"running","progress":100,"name":"Import","failed_jobs":0,"total_jobs":7}
update job_batches set finished_at = 5 where id = 'KEY';
--> {"id":"KEY","status":"completed","progress":100,"name":"Import","failed_jobs":0,"total_jobs":7}
-- life: the first failure cancels the batch
insert into imports (user_id, batch_id) values (42, 'b');
insert into job_batches values ('b', 'Import', 4, 4, 0, '[]', null, null, 1, null) returning id;
--> {"id":"KEY","status":"running","progress":0,"name":"Import","failed_jobs":0,"total_jobs":4}
update job_batches set failed_jobs = 1, cancelled_at = 3, finished_at = 3 where id = 'KEY';
--> {"id":"KEY","status":"failed","progress":0,"name":"Import","failed_jobs":1,"total_jobs":4}
-- life: failures are allowed, and have their retries
insert into imports (user_id, batch_id) values (42, 'c');
insert into job_batches values ('c', 'Import', 4, 4, 0, '[]', null, null, 1, null) returning id;
--> {"id":"KEY","status":"running","progress":0,"name":"Import","failed_jobs":0,"total_jobs":4}
update job_batches set pending_jobs = 3, failed_jobs = 1 where id = 'KEY';
--> {"id":"KEY","status":"running","progress":25,"name":"Import","failed_jobs":1,"total_jobs":4}
update job_batches set pending_jobs = 1 where id = 'KEY';
--> {"id":"KEY","status":"failed","progress":75,"name":"Import","failed_jobs":1,"total_jobs":4}
-- life: cancelled
insert into imports (user_id, batch_id) values (42, 'd');
insert into job_batches values ('d', 'Import', 4, 4, 0, '[]', null, null, 1, null) returning id;
--> {"id":"KEY","status":"running","progress":0,"name":"Import","failed_jobs":0,"total_jobs":4}
update job_batches set cancelled_at = 3, finished_at = 3 where id = 'KEY';
--> {"id":"KEY","status":"cancelled","progress":0,"name":"Import","failed_jobs":0,"total_jobs":4}
