create table imports (id bigserial primary key, user_id text not null, status text not null default 'pending', rows_done bigint, rows_total bigint);

-- life: completed
insert into imports (user_id) values ('alice') returning id;
--> {"id":KEY,"status":"pending","progress":0}
update imports set status = 'running', rows_total = 100, rows_done = 29 where id = KEY;
--> {"id":KEY,"status":"running","progress":29}
update imports set rows_total = 1000 where id = KEY;
--> {"id":KEY,"status":"running","progress":2}
update imports set status = 'completed', rows_done = 1000 where id = KEY;
--> {"id":KEY,"status":"completed","progress":100}
-- life: nothing to do
insert into imports (user_id, status, rows_done, rows_total) values ('alice', 'running', 0, 0) returning id;
--> {"id":KEY,"status":"running","progress":0}
update imports set status = 'completed' where id = KEY;
--> {"id":KEY,"status":"completed","progress":100}
