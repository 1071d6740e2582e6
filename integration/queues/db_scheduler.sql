create table scheduled_tasks (
    task_name text not null, task_instance text not null, task_data bytea, execution_time timestamptz, picked boolean not null, picked_by text,
    last_success timestamptz, last_failure timestamptz, consecutive_failures integer, last_heartbeat timestamptz, version bigint not null, priority smallint, state text,
    primary key (task_name, task_instance)
);
-- what the application has about its tasks
create table reports (id bigserial primary key, user_id text not null, task text not null unique);

-- life: removed at the end, after a retry
insert into reports (user_id, task) values ('alice', 'report-1');
insert into scheduled_tasks (task_name, task_instance, execution_time, picked, version) values ('report', 'report-1', now(), false, 1) returning task_instance;
--> {"id":"KEY","status":"pending","progress":0,"task_name":"report"}
update scheduled_tasks set picked = true, picked_by = 'a', last_heartbeat = now(), version = version + 1 where task_instance = 'KEY';
--> {"id":"KEY","status":"running","progress":0,"task_name":"report"}
update scheduled_tasks set picked = false, picked_by = null, last_heartbeat = null, last_failure = now(), consecutive_failures = 1, execution_time = now(), version = version + 1
    where task_instance = 'KEY';
--> {"id":"KEY","status":"pending","progress":0,"task_name":"report","consecutive_failures":1}
update scheduled_tasks set picked = true, picked_by = 'a', last_heartbeat = now(), version = version + 1 where task_instance = 'KEY';
--> {"id":"KEY","status":"running","progress":0,"task_name":"report","consecutive_failures":1}
delete from scheduled_tasks where task_instance = 'KEY';
--> {"id":"KEY","status":"completed","progress":100,"task_name":"report","consecutive_failures":1}
