create table users (id int primary key, uid text not null);
insert into users values (7, 'alice'), (8, 'bob');
create table reports (id bigserial primary key, created_by int references users, status text, progress integer, started timestamptz, cost numeric, big bigint, ok boolean, kind text);

-- life: completed, with fields of every kind
insert into reports (created_by, started) values (7, '2026-01-02 03:04:05.6+00') returning id;
--> {"id":KEY,"status":"pending","progress":0,"started":"2026-01-02T03:04:05.600000Z"}
update reports set status = 'running', cost = 'NaN', big = 9007199254740993, ok = false, started = 'infinity' where id = KEY;
--> {"id":KEY,"status":"running","progress":0,"big":"9007199254740993","ok":false}
update reports set cost = 12345678901234567890.5, big = -5, kind = E'a\n"b"' where id = KEY;
--> {"id":KEY,"status":"running","progress":0,"cost":12345678901234567890.5,"big":-5,"ok":false,"kind":"a\n\"b\""}
update reports set status = 'completed', progress = 100, cost = null, ok = null, big = null where id = KEY;
--> {"id":KEY,"status":"completed","progress":100,"kind":"a\n\"b\""}
