create table stepped_jobs (id bigserial primary key, user_id text not null, status text not null default 'pending');
create table job_steps (id bigserial primary key, job_id bigint not null references stepped_jobs on delete cascade, done boolean not null default false);
create index on job_steps (job_id);

-- life: completed
insert into stepped_jobs (user_id) values ('alice') returning id;
--> {"id":KEY,"status":"pending","progress":0}
update stepped_jobs set status = 'running' where id = KEY;
--> {"id":KEY,"status":"running","progress":0}
insert into job_steps (job_id, done) values (KEY, true), (KEY, false), (KEY, false);
--> {"id":KEY,"status":"running","progress":33}
update job_steps set done = true where id = (select max(id) from job_steps where job_id = KEY);
--> {"id":KEY,"status":"running","progress":66}
delete from job_steps where job_id = KEY and not done;
--> {"id":KEY,"status":"running","progress":100}
update stepped_jobs set status = 'completed' where id = KEY;
--> {"id":KEY,"status":"completed","progress":100}
