create type sync_status as enum ('Queued', 'Running', 'SUCCESS', 'Error', 'cancelled');
create table syncs (id bigint generated always as identity primary key, user_id text not null, status sync_status not null default 'Queued', progress real, error text);

-- life: completed
insert into syncs (user_id) values ('alice') returning id;
--> {"id":KEY,"status":"pending","progress":0}
update syncs set status = 'Running', progress = 33.3 where id = KEY;
--> {"id":KEY,"status":"running","progress":33}
update syncs set status = 'SUCCESS', progress = 100 where id = KEY;
--> {"id":KEY,"status":"completed","progress":100}
-- life: failed
insert into syncs (user_id, status) values ('alice', 'Running') returning id;
--> {"id":KEY,"status":"running","progress":0}
update syncs set status = 'Error', error = 'no such host' where id = KEY;
--> {"id":KEY,"status":"failed","progress":0,"error":"no such host"}
-- life: cancelled
insert into syncs (user_id, progress) values ('alice', 7) returning id;
--> {"id":KEY,"status":"pending","progress":7}
update syncs set status = 'cancelled' where id = KEY;
--> {"id":KEY,"status":"cancelled","progress":7}
