create table delayed_jobs (
    id bigserial primary key, priority integer not null default 0, attempts integer not null default 0, handler text not null, last_error text, run_at timestamp,
    locked_at timestamp, failed_at timestamp, locked_by character varying, queue character varying, created_at timestamp, updated_at timestamp
);

-- life: deleted at the end, after a retry
insert into delayed_jobs (handler, user_id, queue) values ('--- !ruby/object:ExportJob {}', 'alice', 'exports') returning id;
--> {"id":KEY,"status":"pending","progress":0,"queue":"exports","attempts":0}
update delayed_jobs set locked_at = now(), locked_by = 'host:a' where id = KEY;
--> {"id":KEY,"status":"running","progress":0,"queue":"exports","attempts":0}
update delayed_jobs set progress = 40 where id = KEY;
--> {"id":KEY,"status":"running","progress":40,"queue":"exports","attempts":0}
update delayed_jobs set locked_at = null, locked_by = null, attempts = 1, last_error = 'late', run_at = now() where id = KEY;
--> {"id":KEY,"status":"pending","progress":40,"queue":"exports","attempts":1}
delete from delayed_jobs where id = KEY;
--> {"id":KEY,"status":"completed","progress":100,"queue":"exports","attempts":1}
-- life: failed
insert into delayed_jobs (handler, user_id, queue, locked_at) values ('--- !ruby/object:ExportJob {}', 'alice', 'exports', now()) returning id;
--> {"id":KEY,"status":"running","progress":0,"queue":"exports","attempts":0}
update delayed_jobs set failed_at = now(), attempts = 25, last_error = 'no' where id = KEY;
--> {"id":KEY,"status":"failed","progress":0,"queue":"exports","attempts":25,"error":"no"}
