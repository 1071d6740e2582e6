create table que_jobs (
    priority smallint not null default 100, run_at timestamptz not null default now(), id bigserial primary key, job_class text not null, error_count integer not null default 0,
    last_error_message text, queue text not null default 'default', last_error_backtrace text, finished_at timestamptz, expired_at timestamptz,
    args jsonb not null default '[]', data jsonb not null default '{}', job_schema_version integer not null, kwargs jsonb not null default '{}',
    check (char_length(last_error_message) <= 500 and char_length(last_error_backtrace) <= 10000), check (jsonb_typeof(args) = 'array'), check (jsonb_typeof(data) = 'object')
);

-- life: destroyed at the end, after a retry
insert into que_jobs (job_class, kwargs, job_schema_version) values ('ExportJob', '{"user_id": "alice"}', 2) returning id;
--> {"id":KEY,"status":"pending","progress":0,"job_class":"ExportJob"}
update que_jobs set data = data || '{"progress": 40}' where id = KEY;
--> {"id":KEY,"status":"running","progress":40,"job_class":"ExportJob"}
update que_jobs set error_count = 1, last_error_message = 'late', last_error_backtrace = '', run_at = now() where id = KEY;
update que_jobs set data = data || '{"progress": 10}' where id = KEY;
--> {"id":KEY,"status":"running","progress":10,"job_class":"ExportJob"}
delete from que_jobs where id = KEY;
--> {"id":KEY,"status":"completed","progress":100,"job_class":"ExportJob"}
-- life: finished, and kept
insert into que_jobs (job_class, kwargs, job_schema_version) values ('ExportJob', '{"user_id": "alice"}', 2) returning id;
--> {"id":KEY,"status":"pending","progress":0,"job_class":"ExportJob"}
update que_jobs set data = '{"progress": 100}', finished_at = now() where id = KEY;
--> {"id":KEY,"status":"completed","progress":100,"job_class":"ExportJob"}
-- life: expired
insert into que_jobs (job_class, kwargs, job_schema_version) values ('ExportJob', '{"user_id": "alice"}', 2) returning id;
--> {"id":KEY,"status":"pending","progress":0,"job_class":"ExportJob"}
update que_jobs set error_count = 16, last_error_message = 'no', expired_at = now() where id = KEY;
--> {"id":KEY,"status":"failed","progress":0,"job_class":"ExportJob","error":"no"}
