-- The application's table: it knows nothing of auditstream.
create table if not exists audits (
    id bigint generated always as identity primary key,
    user_id text not null,
    status text not null default 'pending',
    progress int not null default 0,
    message text
);
