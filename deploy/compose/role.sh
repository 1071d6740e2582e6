#!/bin/sh
# Run by PostgreSQL's image when it makes the database: the role that serve has.
set -e
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -v password="$SERVE_PASSWORD" <<'SQL'
create role auditstream_serve login password :'password';
SQL
