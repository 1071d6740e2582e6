create table exports (id uuid primary key default gen_random_uuid(), user_id text not null, status text not null default 'pending', progress integer not null default 0, message text);

-- life: completed
insert into exports (user_id) values ('alice') returning id;
--> {"id":"KEY","status":"pending","progress":0}
update exports set status = 'running', progress = 40, message = 'page 4' where id = 'KEY';
--> {"id":"KEY","status":"running","progress":40,"message":"page 4"}
update exports set status = 'completed', progress = 100, message = null where id = 'KEY';
--> {"id":"KEY","status":"completed","progress":100}
