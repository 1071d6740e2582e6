create table builds (id bigserial primary key, user_id text not null, started_at timestamptz, finished_at timestamptz, cancelled_at timestamptz, error_text text);

-- life: completed
insert into builds (user_id) values ('alice') returning id;
--> {"id":KEY,"status":"pending","progress":0}
update builds set started_at = now() where id = KEY;
--> {"id":KEY,"status":"running","progress":0}
update builds set finished_at = now() where id = KEY;
--> {"id":KEY,"status":"completed","progress":100}
-- life: failed
insert into builds (user_id, started_at) values ('alice', now()) returning id;
--> {"id":KEY,"status":"running","progress":0}
update builds set finished_at = now(), error_text = 'exit status 2' where id = KEY;
--> {"id":KEY,"status":"failed","progress":0,"error":"exit status 2"}
-- life: cancelled
insert into builds (user_id, started_at) values ('alice', now()) returning id;
--> {"id":KEY,"status":"running","progress":0}
update builds set finished_at = now(), cancelled_at = now(), error_text = 'signal: killed' where id = KEY;
--> {"id":KEY,"status":"cancelled","progress":0}
