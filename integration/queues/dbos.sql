create schema dbos;
create table dbos.workflow_status (
    workflow_uuid text primary key, status text, name text, authenticated_user text, assumed_role text, authenticated_roles text, request text, output text, error text,
    executor_id text, created_at bigint not null default 1, updated_at bigint not null default 1, application_version text, application_id text, class_name character varying(255),
    config_name character varying(255), recovery_attempts bigint default 0, queue_name text, workflow_timeout_ms bigint, workflow_deadline_epoch_ms bigint, inputs text,
    started_at_epoch_ms bigint, deduplication_id text, priority integer not null default 0
);

-- life: successful
insert into dbos.workflow_status (workflow_uuid, status, name, authenticated_user, inputs) values ('9d1f0000-export-1', 'ENQUEUED', 'export', 'alice', '{"args": [1]}') returning workflow_uuid;
--> {"id":"KEY","status":"pending","progress":0,"name":"export"}
update dbos.workflow_status set status = 'PENDING', started_at_epoch_ms = 2 where workflow_uuid = 'KEY';
--> {"id":"KEY","status":"running","progress":0,"name":"export"}
update dbos.workflow_status set status = 'SUCCESS', output = '{"json": 1}' where workflow_uuid = 'KEY';
--> {"id":"KEY","status":"completed","progress":100,"name":"export"}
-- life: failed
insert into dbos.workflow_status (workflow_uuid, status, name, authenticated_user) values ('b', 'PENDING', 'export', 'alice') returning workflow_uuid;
--> {"id":"KEY","status":"running","progress":0,"name":"export"}
update dbos.workflow_status set status = 'ERROR', error = '{"message": "no"}' where workflow_uuid = 'KEY';
--> {"id":"KEY","status":"failed","progress":0,"name":"export","error":"{\"message\": \"no\"}"}
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
