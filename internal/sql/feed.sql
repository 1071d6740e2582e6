-- feed.sql: the table that `auditstream install --create --feed NAME` makes, for the progress of work that has no table of its own, or whose
-- rows are locked while it runs. The function auditstream.report() of install.sql writes to it.
create table if not exists :table (
    id          text primary key check (octet_length(id) between 1 and 255),
    user_id     text,
    user_email  text,
    status      text not null default 'pending',
    progress    integer not null default 0 check (progress between 0 and 100),
    message     text,
    error       text,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
