create table qrtz_job_details (
    sched_name character varying(120) not null, job_name character varying(200) not null, job_group character varying(200) not null, description character varying(250),
    job_class_name character varying(250) not null, is_durable bool not null, is_nonconcurrent bool not null, is_update_data bool not null, requests_recovery bool not null, job_data bytea,
    primary key (sched_name, job_name, job_group)
);
create table qrtz_triggers (
    sched_name character varying(120) not null, trigger_name character varying(200) not null, trigger_group character varying(200) not null, job_name character varying(200) not null,
    job_group character varying(200) not null, description character varying(250), next_fire_time bigint, prev_fire_time bigint, priority integer, trigger_state character varying(16) not null,
    trigger_type character varying(8) not null, start_time bigint not null, end_time bigint, calendar_name character varying(200), misfire_instr smallint, job_data bytea,
    primary key (sched_name, trigger_name, trigger_group), foreign key (sched_name, job_name, job_group) references qrtz_job_details
);
insert into qrtz_job_details values ('app', 'ExportJob', 'DEFAULT', null, 'app.ExportJob', true, true, false, false, null);

-- life: fired once, after another of the same job, and a pause
insert into qrtz_triggers values ('app', 'export-1', 'alice', 'ExportJob', 'DEFAULT', 'All of 2026', 1, -1, 5, 'WAITING', 'SIMPLE', 1, 0, null, 0, '') returning trigger_name;
--> {"id":"KEY","status":"pending","progress":0,"message":"All of 2026","job_name":"ExportJob"}
update qrtz_triggers set trigger_state = 'BLOCKED' where trigger_name = 'KEY';
update qrtz_triggers set trigger_state = 'PAUSED_BLOCKED' where trigger_name = 'KEY';
update qrtz_triggers set trigger_state = 'PAUSED' where trigger_name = 'KEY';
update qrtz_triggers set trigger_state = 'WAITING' where trigger_name = 'KEY';
update qrtz_triggers set trigger_state = 'ACQUIRED' where trigger_name = 'KEY';
update qrtz_triggers set trigger_state = 'COMPLETE', next_fire_time = null, prev_fire_time = 1 where trigger_name = 'KEY';
--> {"id":"KEY","status":"running","progress":0,"message":"All of 2026","job_name":"ExportJob"}
delete from qrtz_triggers where trigger_name = 'KEY';
--> {"id":"KEY","status":"completed","progress":100,"message":"All of 2026","job_name":"ExportJob"}
-- life: failed, which the job says before it throws
insert into qrtz_triggers values ('app', 'export-3', 'alice', 'ExportJob', 'DEFAULT', null, 1, -1, 5, 'WAITING', 'SIMPLE', 1, 0, null, 0, '') returning trigger_name;
--> {"id":"KEY","status":"pending","progress":0,"job_name":"ExportJob"}
update qrtz_triggers set trigger_state = 'COMPLETE', next_fire_time = null, prev_fire_time = 1 where trigger_name = 'KEY';
--> {"id":"KEY","status":"running","progress":0,"job_name":"ExportJob"}
update qrtz_triggers set trigger_state = 'ERROR' where trigger_name = 'KEY';
--> {"id":"KEY","status":"failed","progress":0,"job_name":"ExportJob"}
-- life: cannot be fired
insert into qrtz_triggers values ('app', 'export-2', 'alice', 'ExportJob', 'DEFAULT', null, 1, -1, 5, 'WAITING', 'SIMPLE', 1, 0, null, 0, '') returning trigger_name;
--> {"id":"KEY","status":"pending","progress":0,"job_name":"ExportJob"}
update qrtz_triggers set trigger_state = 'ERROR' where trigger_name = 'KEY';
--> {"id":"KEY","status":"failed","progress":0,"job_name":"ExportJob"}
