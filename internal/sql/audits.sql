-- audits.sql: the table for development and tests, and what `auditstream install --create` makes.
--
--     psql -v ON_ERROR_STOP=1 -f audits.sql                   public.audits
--     psql -v ON_ERROR_STOP=1 -v table=app.audits -f ...      under another name
--
-- The program also reads this file. It leaves out the lines that start with a backslash, and fills in :table itself.
\if :{?table}
\else
    \set table public.audits
\endif

create table if not exists :table (
    id          bigint generated always as identity primary key,
    user_id     text,
    user_email  text,
    url         text not null,
    status      text not null default 'pending'
                check (status in ('pending', 'running', 'completed', 'failed')),
    progress    integer not null default 0 check (progress between 0 and 100),
    message     text,
    geo_score   double precision,
    total_pages integer,
    error       text,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
