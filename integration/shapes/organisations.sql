-- mine: {"sub":"carol","groups":["12","31"]}
create table tenants_jobs (id bigserial primary key, org_id bigint not null, status text, progress integer);

-- life: completed
insert into tenants_jobs (org_id) values (31) returning id;
--> {"id":KEY,"status":"pending","progress":0}
update tenants_jobs set status = 'running', progress = 50 where id = KEY;
--> {"id":KEY,"status":"running","progress":50}
update tenants_jobs set status = 'completed', progress = 100 where id = KEY;
--> {"id":KEY,"status":"completed","progress":100}
