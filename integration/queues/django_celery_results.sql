create table django_celery_results_taskresult (
    id serial primary key, task_id character varying(255) not null unique, status character varying(50) not null, content_type character varying(128) not null default 'application/json',
    content_encoding character varying(64) not null default 'utf-8', result text, date_done timestamptz not null default now(), traceback text, meta text,
    task_args text, task_kwargs text, task_name character varying(255), worker character varying(100), date_created timestamptz not null default now(),
    periodic_task_name character varying(255), date_started timestamptz
);
-- what the application has about its tasks
create table exports (id serial primary key, user_id text not null, task_id character varying(255) not null unique);

-- life: completed after a retry
insert into exports (user_id, task_id) values ('alice', '0a9f8a2e-6f0b-4c9f-8a1e-000000000001');
insert into django_celery_results_taskresult (task_id, status, task_name) values ('0a9f8a2e-6f0b-4c9f-8a1e-000000000001', 'PENDING', 'app.export') returning task_id;
--> {"id":"KEY","status":"pending","progress":0,"task_name":"app.export"}
update django_celery_results_taskresult set status = 'STARTED', result = '{"pid": 12, "hostname": "celery@a"}' where task_id = 'KEY';
--> {"id":"KEY","status":"running","progress":0,"task_name":"app.export"}
update django_celery_results_taskresult set status = 'PROGRESS', result = '{"current": 29, "total": 100, "stage": "reading"}' where task_id = 'KEY';
--> {"id":"KEY","status":"running","progress":29,"task_name":"app.export"}
update django_celery_results_taskresult set status = 'RETRY', result = '{"exc_type": "TimeoutError", "exc_message": ["late"]}' where task_id = 'KEY';
--> {"id":"KEY","status":"pending","progress":0,"task_name":"app.export"}
update django_celery_results_taskresult set status = 'SUCCESS', result = '"s3://exports/1"' where task_id = 'KEY';
--> {"id":"KEY","status":"completed","progress":100,"task_name":"app.export"}
-- life: failed
insert into exports (user_id, task_id) values ('alice', 'b,/%');
insert into django_celery_results_taskresult (task_id, status, task_name) values ('b,/%', 'STARTED', 'app.export') returning task_id;
--> {"id":"KEY","status":"running","progress":0,"task_name":"app.export"}
update django_celery_results_taskresult set status = 'FAILURE', result = '{"exc_type": "ValueError", "exc_message": ["no"]}' where task_id = 'KEY';
--> {"id":"KEY","status":"failed","progress":0,"task_name":"app.export"}
-- life: revoked
insert into exports (user_id, task_id) values ('alice', 'c');
insert into django_celery_results_taskresult (task_id, status, task_name) values ('c', 'PENDING', 'app.export') returning task_id;
--> {"id":"KEY","status":"pending","progress":0,"task_name":"app.export"}
update django_celery_results_taskresult set status = 'REVOKED' where task_id = 'KEY';
--> {"id":"KEY","status":"cancelled","progress":0,"task_name":"app.export"}
