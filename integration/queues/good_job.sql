create table good_jobs (
    id uuid primary key default gen_random_uuid(), queue_name text, priority integer, serialized_params jsonb, scheduled_at timestamp, performed_at timestamp,
    finished_at timestamp, error text, created_at timestamp not null default now(), updated_at timestamp not null default now(), active_job_id uuid,
    concurrency_key text, cron_key text, retried_good_job_id uuid, cron_at timestamp, batch_id uuid, batch_callback_id uuid, is_discrete boolean,
    executions_count integer, job_class text, error_event smallint, labels text[], locked_by_id uuid, locked_at timestamp,
    lock_type smallint
);

-- life: completed after a retry
insert into good_jobs (job_class, serialized_params) values ('ExportJob', '{"arguments": [{"user_id": "alice", "_aj_ruby2_keywords": ["user_id"]}]}') returning id;
--> {"id":"KEY","status":"pending","progress":0,"job_class":"ExportJob"}
update good_jobs set performed_at = now(), locked_at = now() where id = 'KEY';
--> {"id":"KEY","status":"running","progress":0,"job_class":"ExportJob"}
update good_jobs set progress = 40 where id = 'KEY';
--> {"id":"KEY","status":"running","progress":40,"job_class":"ExportJob"}
update good_jobs set performed_at = null, locked_at = null, error = 'Net::ReadTimeout: late', error_event = 3, scheduled_at = now() where id = 'KEY';
--> {"id":"KEY","status":"pending","progress":40,"job_class":"ExportJob"}
update good_jobs set performed_at = now(), locked_at = now() where id = 'KEY';
--> {"id":"KEY","status":"running","progress":40,"job_class":"ExportJob"}
update good_jobs set progress = 100 where id = 'KEY';
--> {"id":"KEY","status":"running","progress":100,"job_class":"ExportJob"}
update good_jobs set finished_at = now(), locked_at = null, error = null, error_event = null where id = 'KEY';
--> {"id":"KEY","status":"completed","progress":100,"job_class":"ExportJob"}
-- life: discarded
insert into good_jobs (job_class, serialized_params) values ('ExportJob', '{"arguments": [{"user_id": "alice"}]}') returning id;
--> {"id":"KEY","status":"pending","progress":0,"job_class":"ExportJob"}
update good_jobs set performed_at = now(), finished_at = now(), error = 'RuntimeError: no', error_event = 5 where id = 'KEY';
--> {"id":"KEY","status":"failed","progress":0,"job_class":"ExportJob","error":"RuntimeError: no"}
-- life: deleted before it ran
insert into good_jobs (job_class, serialized_params) values ('ExportJob', '{"arguments": [{"user_id": "alice"}]}') returning id;
--> {"id":"KEY","status":"pending","progress":0,"job_class":"ExportJob"}
delete from good_jobs where id = 'KEY';
--> {"error":"No such row"}
