create table tasks (id bigserial primary key, user_id text not null, status text, progress integer, deleted_at timestamptz);

-- life: completed
insert into tasks (user_id) values ('alice') returning id;
--> {"id":KEY,"status":"pending","progress":0}
update tasks set status = 'completed', progress = 100 where id = KEY;
--> {"id":KEY,"status":"completed","progress":100}
-- life: deleted while it is watched
insert into tasks (user_id, status, progress) values ('alice', 'running', 40) returning id;
--> {"id":KEY,"status":"running","progress":40}
update tasks set deleted_at = now() where id = KEY;
--> {"error":"No such row"}
