create table renders (id serial primary key, user_id text not null, state smallint not null default 0, progress numeric(5,2));

-- life: completed
insert into renders (user_id) values ('alice') returning id;
--> {"id":KEY,"status":"pending","progress":0}
update renders set state = 1, progress = 99.99 where id = KEY;
--> {"id":KEY,"status":"running","progress":99}
update renders set state = 2, progress = 100 where id = KEY;
--> {"id":KEY,"status":"completed","progress":100}
-- life: failed
insert into renders (user_id, state) values ('alice', 1) returning id;
--> {"id":KEY,"status":"running","progress":0}
update renders set state = 9 where id = KEY;
--> {"id":KEY,"status":"9","progress":0}
update renders set state = 3 where id = KEY;
--> {"id":KEY,"status":"failed","progress":0}
