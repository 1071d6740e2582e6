package dsn

import (
	"regexp"
	"slices"
	"strings"
)

// parameter is a parameter of other tools that has no meaning for this driver.
type parameter struct {
	tool     string   // the tool that knows it, in the genitive, for messages
	remedy   string   // what to write instead, if anything
	refuse   bool     // without it the connection would be less safe, or lead to another server
	harmless []string // values with which it can be left out
}

// toolParameters are left out without a word about what to write instead.
var toolParameters = []struct{ of, names string }{
	{"Prisma's", "connection_limit pool_timeout socket_timeout statement_cache_size"},
	{"SQLAlchemy's or asyncpg's", `async_fallback prepared_statement_cache_size prepared_statement_name_func command_timeout server_settings
		timeout max_cached_statement_lifetime max_cacheable_statement_size executemany_mode max_overflow echo pool_size pool_recycle pool_pre_ping`},
	{"JDBC's", `applicationname preparethreshold preparedstatementcachequeries preparedstatementcachesizemib defaultrowfetchsize logintimeout
		connecttimeout sockettimeout cancelsignaltimeout tcpkeepalive tcpnodelay rewritebatchedinserts binarytransfer binarytransferenable
		binarytransferdisable stringtype loadbalancehosts hostrecheckseconds autosave cleanupsavepoints assumeminserverversion readonly readonlymode
		disablecolumnsanitiser escapesyntaxcallmode jaasapplicationname jaaslogin usespnego sspiserviceclass logunclosedconnections loggerlevel
		loggerfile protocolversion quotereturningidentifiers receivebuffersize sendbuffersize sslresponsetimeout databasemetadatacachefields
		databasemetadatacachefieldsmib prefequerymode preferquerymode allowencodingchanges adaptivefetch adaptivefetchmaximum adaptivefetchminimum
		maxresultbuffer maxsendbuffersize xmlfactoryfactory gssresponsetimeout hidenonpublicschemas unknownlength grouping`},
	{"libpq's", `keepalives keepalives_idle keepalives_interval keepalives_count tcp_user_timeout load_balance_hosts sslcompression gsslib
		gssdelegation fallback_application_name ssl_max_protocol_version sslkeylogfile authtype tty`},
	{"Rails'", `pool encoding prepared_statements advisory_locks reaping_frequency checkout_timeout variables min_messages idle_timeout adapter
		insert_returning reconnect statement_limit database_tasks template collation schema_order strict min_threads max_threads`},
	{"Django's", "conn_max_age conn_health_checks atomic_requests disable_server_side_cursors autocommit engine"},
	{"a Go driver's", `binary_parameters disable_prepared_binary_result prefer_simple_protocol statement_cache_mode max_open_conns max_idle_conns
		conn_max_lifetime read_timeout write_timeout dial_timeout x-migrations-table x-migrations-table-quoted x-statement-timeout
		x-multi-statement x-multi-statement-max-size x-lock-strategy x-lock-table x-no-lock`},
	{"a Node.js driver's", `uselibpqcompat max min idletimeoutmillis connectiontimeoutmillis query_timeout keepalive keepaliveinitialdelaymillis
		allowexitonidle binary max_lifetime prepare fetch_types dialect synchronize logging entities migrations max_pipeline debug`},
	{"Doctrine's or Laravel's", "serverversion charset driver prefix prefix_indexes driveroptions persistent default_dbname"},
	{"a Rust, Elixir or Python driver's", "statement-cache-capacity queue_target queue_interval ssl_opts row_factory cursor_factory minsize maxsize min_size max_size"},
	{"of a service that hosts databases", "supa workaround topology_keys load_balance yb_servers_refresh_interval"},
}

// replacedParameters are left out, and a message says what to write instead.
var replacedParameters = []struct{ names, of, remedy string }{
	{"schema", "Prisma's", "install knows a table by its whole name, --table SCHEMA.TABLE"},
	{"currentschema", "JDBC's", "install knows a table by its whole name, --table SCHEMA.TABLE"},
	{"schema_search_path", "Rails'", "install knows a table by its whole name, --table SCHEMA.TABLE"},
	{"pgbouncer", "Prisma's", "behind a transaction pooler DATABASE_LISTEN_URL must be set to a direct connection"},
	{"connection_limit pool max max_open_conns pool_size", "another tool's", "write pool_max_conns=N"},
	{"applicationname fallback_application_name", "another tool's", "write application_name"},
	{"logintimeout connecttimeout connectiontimeoutmillis", "another tool's", "write connect_timeout, in seconds"},
	{"prefer_simple_protocol preferquerymode", "another tool's", "write default_query_exec_mode=simple_protocol"},
	{"loadbalancehosts load_balance_hosts", "another tool's", "hosts are tried in their order"},
}

const tlsRemedy = "write sslmode=require, or sslmode=verify-full and sslrootcert"

var offValues = []string{"", "0", "false", "off", "no", "disable", "disabled", "none"}

// refusedParameters are those without which the connection would be less safe, or lead to another server.
var refusedParameters = []struct {
	names, of, remedy string
	harmless          []string
}{
	{"ssl tls sslenabled usessl ssl_enabled ssl_require requiressl trustservercertificate", "another tool's", tlsRemedy, offValues},
	{"sslaccept", "Prisma's", "write sslmode=verify-full", []string{"accept_invalid_certs"}},
	{"sslidentity sslinline sslcertstore ssl_key ssl_cert ssl_ca ssl-ca sslca", "another tool's", "write sslcert, sslkey and sslrootcert, with files in PEM", nil},
	{"sslfactory sslhostnameverifier sslpasswordcallback sslfactoryarg", "JDBC's", tlsRemedy, []string{"org.postgresql.ssl.nonvalidatingfactory"}},
	{"sslcrl sslcrldir", "libpq's", "revoked certificates are not looked at here, leave it out if that may be", []string{""}},
	{"ssl_min_protocol_version sslminprotocolversion", "libpq's", "no version below TLS 1.2 is used here, and none can be set", []string{"", "tlsv1", "tlsv1.1", "tlsv1.2"}},
	{"requirepeer", "libpq's", "who owns a socket is not looked at here, leave it out if that may be", []string{""}},
	{"hostaddr", "libpq's", "write the address as host", []string{""}},
	{"replication", "libpq's", "leave it out", offValues},
	{"scram_client_key scram_server_key oauth_issuer oauth_client_id oauth_client_secret oauth_scope", "libpq's", "write a password", []string{""}},
	{"gssencmode", "libpq's", "encryption is by TLS here, " + tlsRemedy, []string{"", "disable", "prefer"}},
	{"targetservertype", "JDBC's", "write target_session_attrs", []string{"", "any"}},
	{"channelbinding", "JDBC's", "write channel_binding", []string{"", "prefer", "disable"}},
	{"kerberosservername", "JDBC's", "write krbsrvname", nil},
	{"socketfactory socketfactoryarg cloudsqlinstance unixsocketpath sockettype", "JDBC's", "write as host what it leads to, a proxy's address or a socket's directory", nil},
	{"socket", "another tool's", "write its directory as host", nil},
	{"username", "another tool's", "write user", nil},
	{"passwd pwd pass", "another tool's", "write password", nil},
	{"server hostname", "another tool's", "write host", nil},
	{"db", "another tool's", "write dbname", nil},
}

// parameters has the parameters by their names in lower case. Later lists change what earlier ones say.
var parameters = func() map[string]parameter {
	all := map[string]parameter{}
	for _, tool := range toolParameters {
		for _, name := range strings.Fields(tool.names) {
			all[name] = parameter{tool: tool.of}
		}
	}
	for _, left := range replacedParameters {
		for _, name := range strings.Fields(left.names) {
			all[name] = parameter{tool: left.of, remedy: left.remedy}
		}
	}
	for _, kept := range refusedParameters {
		for _, name := range strings.Fields(kept.names) {
			all[name] = parameter{tool: kept.of, remedy: kept.remedy, refuse: true, harmless: kept.harmless}
		}
	}
	return all
}()

func set(names string) map[string]bool {
	all := map[string]bool{}
	for _, name := range strings.Fields(names) {
		all[name] = true
	}
	return all
}

var (
	// libpq are the parameters that the driver takes, in the only case that it knows.
	libpqParameters = set(`host port dbname database user password passfile connect_timeout sslmode sslkey sslcert sslcertmode sslrootcert sslnegotiation
		sslpassword sslsni krbspn krbsrvname target_session_attrs service servicefile min_protocol_version max_protocol_version channel_binding
		require_auth application_name options default_query_exec_mode statement_cache_capacity description_cache_capacity pool_max_conns
		pool_min_conns pool_min_idle_conns pool_max_conn_lifetime pool_max_conn_idle_time pool_health_check_period pool_max_conn_lifetime_jitter
		pool_ping_timeout`)
	// sessionSettings are the settings of PostgreSQL that sessions often set.
	sessionSettings = set(`application_name options timezone search_path statement_timeout lock_timeout idle_in_transaction_session_timeout
		idle_session_timeout transaction_timeout client_encoding client_min_messages datestyle intervalstyle extra_float_digits bytea_output
		default_transaction_read_only default_transaction_isolation default_transaction_deferrable work_mem temp_buffers role row_security jit
		synchronous_commit plan_cache_mode tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count lc_messages`)
	// foreignSchemes are schemes of other databases, and those that other tools use for PostgreSQL.
	foreignSchemes = set(`postgis jdbc jdbc:postgresql jdbc:postgres jdbc:mysql jdbc:mariadb jdbc:sqlserver jdbc:pgsql r2dbc r2dbc:postgresql r2dbc:pool:postgresql
		mysql mysql2 mysqls mysqlx mariadb sqlite sqlite3 libsql file prisma prisma+postgres cockroachdb cockroach crdb crdb-postgres redshift timescaledb timescale
		timescalegis psql pgsql pgx pgx4 pgx5 pdo_pgsql pdo-pgsql pg postgre postgress postgressql postgresqls postgresql2 postgres-gis psqlgis ecto http https tcp unix socket
		mongodb mongodb+srv redis rediss valkey sqlserver mssql oracle oracledb odbc odbc:postgresql sqlalchemy asyncpg psycopg psycopg2 neon supabase
		snowflake clickhouse duckdb firebird ibmdb db2 tidb yugabytedb alloydb cloudsql spatialite mongo cassandra couchdb dynamodb edgedb gel greenplum`)
)

// init adds the schemes in which SQLAlchemy and others name a driver, such as postgresql+asyncpg.
func init() {
	for _, base := range []string{"postgresql", "postgres", "cockroachdb", "redshift", "mysql", "mariadb", "sqlite", "mssql", "oracle"} {
		for _, driver := range strings.Fields(`asyncpg psycopg psycopg2 psycopg2cffi psycopg_async psycopgasync pg8000 aiopg pygresql pypostgresql py-postgresql zxjdbc
			pymysql aiomysql asyncmy mysqldb mysqlconnector mysqlclient mariadbconnector aiosqlite pysqlite pyodbc pymssql cx_oracle oracledb ssl ssh tls unix tcp
			srv pool pgbouncer auto_prepare redshift_connector`) {
			foreignSchemes[base+"+"+driver] = true
		}
	}
}

// foreignRedisSchemes are schemes of other clients and other stores.
var foreignRedisSchemes = set(`http https valkey valkeys redis-sentinel redis+sentinel rediss+sentinel redis+cluster rediss+cluster redis-cluster redis+unix
	redis-socket redis+socket redis+ssl redis+tls redis-srv redis+srv tcp tls ssl keydb dragonfly memcached memcache amqp amqps kafka postgres postgresql file`)

// enumerated is a parameter with a fixed list of values, which the driver does not name when it refuses one.
type enumerated struct {
	name, want string
	instead    map[string]string
}

var enumeratedParameters = []enumerated{
	{"sslmode", "disable allow prefer require verify-ca verify-full", map[string]string{
		"no-verify": ": node-postgres' no-verify is require here", "true": ": write require", "1": ": write require", "required": ": write require",
		"verify_full": ": write verify-full", "verify_ca": ": write verify-ca", "disabled": ": write disable", "false": ": write disable",
	}},
	{"target_session_attrs", "any read-write read-only primary standby prefer-standby", map[string]string{"master": ": write primary", "readwrite": ": write read-write"}},
	{"channel_binding", "disable prefer require", nil},
	{"sslcertmode", "disable allow require", nil},
	{"default_query_exec_mode", "cache_statement cache_describe describe_exec exec simple_protocol", nil},
}

// wrongValue says what to write instead of the parameter's value in a connection string, or "" when the value is valid or missing.
func (c enumerated) wrongValue(text string) string {
	for _, value := range regexp.MustCompile(`[?&\s]`+c.name+`\s*=\s*'?([^&\s']+)`).FindAllStringSubmatch(" "+text, -1) {
		if wants := strings.Fields(c.want); !slices.Contains(wants, value[1]) {
			return c.name + " must be one of " + strings.Join(wants, ", ") + c.instead[value[1]]
		}
	}
	return ""
}
