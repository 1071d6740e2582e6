create table jobs (id serial primary key, user_id text not null, status text, progress integer);
create table uploads (id serial primary key, user_id text not null, status text, bytes_done bigint not null default 0, bytes_total bigint not null);

-- life: completed
insert into jobs (user_id) values ('alice') returning id;
--> {"id":KEY,"status":"pending","progress":0}
update jobs set status = 'completed', progress = 100 where id = KEY;
--> {"id":KEY,"status":"completed","progress":100}
-- life: uploads: completed
insert into uploads (user_id, bytes_total) values ('alice', 3000000000) returning id;
--> {"id":KEY,"status":"pending","progress":0}
update uploads set status = 'running', bytes_done = 1500000000 where id = KEY;
--> {"id":KEY,"status":"running","progress":50}
update uploads set status = 'completed', bytes_done = bytes_total where id = KEY;
--> {"id":KEY,"status":"completed","progress":100}
