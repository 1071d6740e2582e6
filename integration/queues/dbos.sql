create schema dbos;
create table dbos.workflow_status (
    workflow_uuid text primary key, status text, name text, authenticated_user text, assumed_role text, authenticated_roles text, request text, output text, error text,
    executor_id text, created_at bigint not null default extract(epoch from now()) * 1000, updated_at bigint not null default extract(epoch from now()) * 1000,
    application_version text, application_id text, class_name character varying(255), config_name character varying(255), recovery_attempts bigint default 0, queue_name text,
    workflow_timeout_ms bigint, workflow_deadline_epoch_ms bigint, inputs text, started_at_epoch_ms bigint, deduplication_id text, priority integer not null default 0,
    queue_partition_key text, forked_from text, owner_xid text, parent_workflow_id text, serialization text, delay_until_epoch_ms bigint,
    was_forked_from boolean not null default false, rate_limited boolean not null default false, completed_at bigint, attributes jsonb, schedule_name text,
    debounce_deadline_epoch_ms bigint, is_debounced boolean not null default false
);
create unique index on dbos.workflow_status (queue_name, deduplication_id) where deduplication_id is not null;

-- life: successful, of a queue, after a delay
insert into dbos.workflow_status (workflow_uuid, status, name, authenticated_user, inputs, queue_name, delay_until_epoch_ms)
    values ('9d1f0000-export-1', 'DELAYED', 'export', 'alice', '{"args": [1]}', 'exports', 1) returning workflow_uuid;
--> {"id":"KEY","status":"pending","progress":0,"name":"export"}
update dbos.workflow_status set status = 'ENQUEUED', delay_until_epoch_ms = null where workflow_uuid = 'KEY';
update dbos.workflow_status set status = 'PENDING', started_at_epoch_ms = 2 where workflow_uuid = 'KEY';
--> {"id":"KEY","status":"running","progress":0,"name":"export"}
update dbos.workflow_status set attributes = '{"progress": 40, "stage": "reading"}', updated_at = 3 where workflow_uuid = 'KEY';
--> {"id":"KEY","status":"running","progress":40,"message":"reading","name":"export"}
update dbos.workflow_status set attributes = null, updated_at = 4 where workflow_uuid = 'KEY';
--> {"id":"KEY","status":"running","progress":0,"name":"export"}
update dbos.workflow_status set status = 'SUCCESS', output = '{"json": 1}', completed_at = 5 where workflow_uuid = 'KEY';
--> {"id":"KEY","status":"completed","progress":100,"name":"export"}
-- life: failed
insert into dbos.workflow_status (workflow_uuid, status, name, authenticated_user) values ('b', 'PENDING', 'export', 'alice') returning workflow_uuid;
--> {"id":"KEY","status":"running","progress":0,"name":"export"}
update dbos.workflow_status set status = 'ERROR', error = 'gASVBwAAAAA=', completed_at = 3 where workflow_uuid = 'KEY';
--> {"id":"KEY","status":"failed","progress":0,"name":"export"}
-- life: never recovered
insert into dbos.workflow_status (workflow_uuid, status, name, authenticated_user) values ('c', 'PENDING', 'export', 'alice') returning workflow_uuid;
--> {"id":"KEY","status":"running","progress":0,"name":"export"}
update dbos.workflow_status set status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED' where workflow_uuid = 'KEY';
--> {"id":"KEY","status":"failed","progress":0,"name":"export"}
-- life: cancelled
insert into dbos.workflow_status (workflow_uuid, status, name, authenticated_user) values ('d', 'PENDING', 'export', 'alice') returning workflow_uuid;
--> {"id":"KEY","status":"running","progress":0,"name":"export"}
update dbos.workflow_status set status = 'CANCELLED' where workflow_uuid = 'KEY';
--> {"id":"KEY","status":"cancelled","progress":0,"name":"export"}
