create type oban_job_state as enum ('available', 'suspended', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled');
create table oban_jobs (
    id bigserial primary key, state oban_job_state not null default 'available', queue text not null default 'default', worker text not null,
    args jsonb not null default '{}', errors jsonb[] not null default '{}', attempt integer not null default 0, max_attempts integer not null default 20,
    inserted_at timestamp not null default timezone('UTC', now()), scheduled_at timestamp not null default timezone('UTC', now()), attempted_at timestamp,
    completed_at timestamp, attempted_by text[], discarded_at timestamp, priority integer not null default 0, tags text[] default '{}',
    meta jsonb default '{}', cancelled_at timestamp, check (max_attempts > 0), check (attempt between 0 and max_attempts)
);

-- life: completed after a retry
insert into oban_jobs (worker, args, state) values ('MyApp.Export', '{"user_id": "alice"}', 'scheduled') returning id;
--> {"id":KEY,"status":"pending","progress":0,"worker":"MyApp.Export","attempt":0}
update oban_jobs set state = 'available' where id = KEY;
update oban_jobs set state = 'executing', attempt = 1, attempted_at = now() where id = KEY;
--> {"id":KEY,"status":"running","progress":0,"worker":"MyApp.Export","attempt":1}
update oban_jobs set meta = meta || '{"progress": 40, "note": "page 4 of 10"}' where id = KEY;
--> {"id":KEY,"status":"running","progress":40,"message":"page 4 of 10","worker":"MyApp.Export","attempt":1}
update oban_jobs set state = 'retryable', errors = errors || array['{"error": "** (Timeout)"}'::jsonb] where id = KEY;
--> {"id":KEY,"status":"pending","progress":40,"message":"page 4 of 10","worker":"MyApp.Export","attempt":1}
update oban_jobs set state = 'executing', attempt = 2, meta = '{"progress": 100}' where id = KEY;
--> {"id":KEY,"status":"running","progress":100,"worker":"MyApp.Export","attempt":2}
update oban_jobs set state = 'completed', completed_at = now() where id = KEY;
--> {"id":KEY,"status":"completed","progress":100,"worker":"MyApp.Export","attempt":2}
-- life: discarded
insert into oban_jobs (worker, args) values ('MyApp.Export', '{"user_id": "alice"}') returning id;
--> {"id":KEY,"status":"pending","progress":0,"worker":"MyApp.Export","attempt":0}
update oban_jobs set state = 'discarded', discarded_at = now() where id = KEY;
--> {"id":KEY,"status":"failed","progress":0,"worker":"MyApp.Export","attempt":0}
-- life: cancelled
insert into oban_jobs (worker, args) values ('MyApp.Export', '{"user_id": "alice"}') returning id;
--> {"id":KEY,"status":"pending","progress":0,"worker":"MyApp.Export","attempt":0}
update oban_jobs set state = 'cancelled', cancelled_at = now() where id = KEY;
--> {"id":KEY,"status":"cancelled","progress":0,"worker":"MyApp.Export","attempt":0}
