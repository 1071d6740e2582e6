package dsn

import (
	"fmt"
	"strings"
	"testing"
)

// Strings of other tools were parsed, the connection went to the server of PGHOST, and errors quoted the password.
func TestU17ForeignStringsAreRefusedByWhatTheyAre(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"postgresql+asyncpg://app:hunter2@db/app?ssl=require":                   `the scheme "postgresql+asyncpg"`,
		"postgresql+psycopg2://app:hunter2@db/app":                              `the scheme "postgresql+psycopg2"`,
		"PostgreSQL+Psycopg://app:hunter2@db/app":                               `the scheme "postgresql+psycopg"`,
		"postgis://app:hunter2@db/app":                                          `the scheme "postgis"`,
		"jdbc:postgresql://db/app?user=app&password=hunter2":                    `the scheme "jdbc:postgresql"`,
		"jdbc:postgresql:app":                                                   `the scheme "jdbc"`,
		"mysql://app:hunter2@db/app":                                            `the scheme "mysql"`,
		"mysql+pymysql://app:hunter2@db/app":                                    `the scheme "mysql+pymysql"`,
		"prisma+postgres://accelerate.example/?api_key=hunter2":                 `the scheme "prisma+postgres"`,
		"prisma://accelerate.example/?api_key=hunter2":                          `the scheme "prisma"`,
		"cockroachdb://app:hunter2@db:26257/app":                                `the scheme "cockroachdb"`,
		"file:./dev.db":                                                         `the scheme "file"`,
		"sqlite:///db.sqlite3":                                                  `the scheme "sqlite"`,
		"hunter2://app@db/app":                                                  "its scheme is not PostgreSQL's",
		"app:hunter2@db/app":                                                    "it begins neither with postgres://",
		"//app:hunter2@db/app":                                                  "it begins neither with postgres://",
		"app:hunter2@db/app?sslmode=require":                                    "it begins neither with postgres://",
		"postgres:app:hunter2@db/app":                                           "it begins neither with postgres://",
		"postgres:/app:hunter2@db/app":                                          "it begins neither with postgres://",
		"hunter2":                                                               "it begins neither with postgres://",
		"${DATABASE_URL}":                                                       "it begins neither with postgres://",
		"":                                                                      "it is empty",
		" \n":                                                                   "it is empty",
		`"postgres://app:hunter2@db/app"`:                                       "something stands before postgres://",
		"psql 'postgresql://app:hunter2@db/app?sslmode=require'":                "something stands before postgres://",
		"DATABASE_URL=postgres://app:hunter2@db/app":                            "something stands before postgres://",
		"\ufeffpostgres://app:hunter2@db/app":                                   "something stands before postgres://",
		"“postgres://app:hunter2@db/app”":                                       "something stands before postgres://",
		"`POSTGRES://app:hunter2@db/app`":                                       "something stands before postgres://",
		"export DATABASE_URL=\"postgres://app:hunter2@db/app\"":                 "something stands before postgres://",
		"postgres://app:hunter2@db/app\u200b":                                   "another invisible character",
		"postgres://app:hunter2@db/app?sslmode=require\u202e":                   "another invisible character",
		"Host=db;Port=5432;Username=app;Password=hunter2;Database=app":          "ADO.NET's",
		"Server=db;User Id=app;Password=hunter2;":                               "ADO.NET's",
		"Driver={PostgreSQL Unicode};Server=db;Uid=app;Pwd=hunter2;":            "ADO.NET's",
		"Host=db Username=app Password=hunter2":                                 "write the parameter host in lower case",
		"host=db username=app password=hunter2":                                 "write user;",
		"server=db user=app password=hunter2":                                   "write host;",
		"postgres://app:p@ss#w/rd?@db/app":                                      "%40",
		"postgres://app:hunter2@x@db/app":                                       "%40",
		"postgres://app:hun/ter2@db/app":                                        "%2F",
		"postgres://app:123/hunter2@db/app":                                     "%2F",
		"postgres://app:50%hunter2@db/app":                                      "%25",
		"postgres://app:hunter2 x@db/app":                                       "%20",
		"postgres://app:hunter2@db:hunter2/app":                                 "a port is a number",
		"postgres://app:hunter2@db:99999/app":                                   "a port is a number",
		"postgres://app:hunter2@::1/app":                                        "[brackets]",
		"postgres://app:hunter2@[::1/app":                                       "[brackets]",
		"postgres://app:hunter2@db\n/app":                                       "a line break",
		"postgres://app:hunter2@db;x/app":                                       "the host is not a name",
		"postgres://app:hunter2@db/app?sslmode=no-verify":                       "no-verify is require here",
		"postgres://app:hunter2@db/app?sslmode=true":                            "write require",
		"host=db password=hunter2 sslmode='verify_full'":                        "write verify-full",
		"postgres://app:hunter2@db/app?target_session_attrs=master":             "write primary",
		"postgres://app:hunter2@db/app?sslmode=verify-full&sslrootcert=/no/ca":  "a file cannot be read",
		"postgres://app:hunter2@db/app?ssl=require":                             "the parameter ssl",
		"postgres://app:hunter2@db/app?ssl=1":                                   "sslmode=require",
		"postgres://app:hunter2@db/app?sslaccept=strict":                        "sslmode=verify-full",
		"postgres://app:hunter2@db/app?sslidentity=client.p12":                  "sslcert",
		"postgres://app:hunter2@db/app?sslfactory=org.example.Factory":          "sslmode",
		"postgres://app:hunter2@db/app?targetServerType=primary":                "target_session_attrs",
		"postgres://app:hunter2@db/app?socketFactory=com.google.SocketFactory":  "a proxy's address",
		"postgres://app:hunter2@db/app?gssencmode=require":                      "the parameter gssencmode",
		"postgres://app:hunter2@db/app?sslcrl=/etc/crl":                         "revoked",
		"postgres://app:hunter2@db/app?hostaddr=10.0.0.1":                       "write the address as host",
		"postgres://app:hunter2@db/app?ssl_min_protocol_version=TLSv1.3":        "TLS 1.2",
		"postgres://app:hunter2@db/app?SSLMODE=require":                         "write the parameter sslmode in lower case",
		"postgres://app:hunter2@db/app?connection_limit":                        "NAME=value",
		"postgres://db/app?user=app&password=hun&ter2=x":                        "a parameter of it is not known (not shown",
		"host=db user=app password=hunter2 x=y":                                 "a parameter of it is not known (not shown",
		"host=db user=app password=hun ter2 dbname=app":                         "cannot be parsed",
		"host=db user=app password='hunter2":                                    "cannot be parsed",
		"postgres://app:hunter2@db/app?hun-ter2=1":                              "a parameter of it is not known (not shown",
		"postgres://app:hunter2@db/app?pool_max_conns=0":                        "pool_max_conns from 1",
		"postgres://app:hunter2@db/app?pool_max_conns=2&pool_min_idle_conns=99": "pool_max_conns from 1",
	} {
		_, warnings, err := Parse("DATABASE_URL", text)
		if err == nil {
			t.Errorf("%q: accepted", text)
			continue
		}
		message := err.Error()
		if !strings.HasPrefix(message, "invalid DATABASE_URL (not shown, it may hold a password): ") || !strings.Contains(message, want) || !strings.HasSuffix(message, exampleHint) {
			t.Errorf("%q: %s, want %q in it", text, message, want)
		}
		if shown := message + strings.Join(warnings, ""); strings.Contains(shown, "hunter2") || strings.Contains(shown, "ter2") {
			t.Errorf("%q: %s shows the password", text, shown)
		}
	}
}

// Parameters without a meaning here were sent to the server, which refuses them, so that serve retried for ever.
func TestU17ParametersOfOtherToolsAreNamedAndLeftOut(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"schema=public":                                 "--table SCHEMA.TABLE",
		"connection_limit=5&pgbouncer=true":             "DATABASE_LISTEN_URL",
		"connection_limit=5":                            "write pool_max_conns=N",
		"pool_timeout=10&socket_timeout=3":              "the parameter pool_timeout is Prisma's",
		"statement_cache_size=0":                        "statement_cache_size",
		"sslaccept=accept_invalid_certs":                "sslaccept",
		"ssl=false":                                     "the parameter ssl is",
		"async_fallback=True":                           "async_fallback",
		"prepared_statement_cache_size=500":             "prepared_statement_cache_size",
		"currentSchema=app":                             "--table SCHEMA.TABLE",
		"ApplicationName=x":                             "write application_name",
		"prepareThreshold=0":                            "the parameter preparethreshold is JDBC's",
		"loginTimeout=5&tcpKeepAlive=true":              "connect_timeout",
		"reWriteBatchedInserts=true":                    "rewritebatchedinserts",
		"keepalives=1&keepalives_idle=30":               "keepalives_idle",
		"tcp_user_timeout=1000":                         "tcp_user_timeout",
		"load_balance_hosts=random":                     "hosts are tried in their order",
		"gssencmode=disable":                            "gssencmode",
		"sslcompression=0":                              "sslcompression",
		"ssl_min_protocol_version=TLSv1.2":              "ssl_min_protocol_version",
		"pool=5&encoding=unicode":                       "the parameter encoding is Rails'",
		"prepared_statements=false&advisory_locks=true": "prepared_statements",
		"reaping_frequency=10&checkout_timeout=5":       "checkout_timeout",
		"variables[statement_timeout]=5s":               "variables",
		"conn_max_age=600":                              "conn_max_age",
		"serverVersion=16&charset=utf8":                 "serverversion",
		"uselibpqcompat=true&sslmode=require":           "uselibpqcompat",
		"max=10&idleTimeoutMillis=1000":                 "idletimeoutmillis",
		"binary_parameters=yes":                         "binary_parameters",
		"supa=base-pooler.x&sslmode=require":            "supa",
		"x-migrations-table=m":                          "x-migrations-table",
		"pool_recycle=3600":                             "pool_",
	} {
		cfg, warnings, err := Parse("DATABASE_URL", "postgres://app:hunter2@db/app?"+text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if all := strings.Join(warnings, "\n"); !strings.Contains(all, want) || !strings.HasPrefix(all, "DATABASE_URL: ") || strings.Contains(all, "hunter2") {
			t.Errorf("%s: warnings %q, want %q among them", text, warnings, want)
		}
		if len(cfg.ConnConfig.RuntimeParams) > 0 {
			t.Errorf("%s: sends %v", text, cfg.ConnConfig.RuntimeParams)
		}
	}
}

func TestU17WhatPostgreSQLUnderstandsIsLeftAlone(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"postgres://app:p%40ss%23w%2Frd%3F@db/app":                                     "db 5432 app app p@ss#w/rd? map[]",
		"postgres://app:p#s?s&w=rd!$^*()~@db/app":                                      "db 5432 app app p#s?s&w=rd!$^*()~ map[]",
		"POSTGRES://app:secret@db/app\r\n":                                             "db 5432 app app secret map[]",
		"postgresql://app:secret@h1:5432,h2:5433/app?target_session_attrs=read-write":  "h1,h2 5432 app app secret map[]",
		"postgres://app:secret@[2001:db8::1]:5433/app":                                 "2001:db8::1 5433 app app secret map[]",
		"postgres://app:secret@/app?host=/var/run/postgresql":                          "/var/run/postgresql 5432 app app secret map[]",
		"host=db user=app password='it\\'s @ secret' dbname=app":                       "db 5432 app app it's @ secret map[]",
		"host=db user=app password=se;cret dbname=app":                                 "db 5432 app app se;cret map[]",
		"host=db user=app password='se; cret' dbname=app":                              "db 5432 app app se; cret map[]",
		"host = db\nuser = app\npassword = secret\ndbname = app\n":                     "db 5432 app app secret map[]",
		"postgres://app:secret@db/app?options=endpoint%3Dep-x&sslmode=require":         "db 5432 app app secret map[options:endpoint=ep-x]",
		"postgres://app:secret@db/app?channel_binding=require&sslnegotiation=direct":   "db 5432 app app secret map[]",
		"postgres://postgres.ref:secret@aws-0.pooler.example.com:6543/postgres":        "aws-0.pooler.example.com 6543 postgres postgres.ref secret map[]",
		"postgres://app:secret@db/app?statement_timeout=5s&search_path=app,public":     "db 5432 app app secret map[search_path:app,public statement_timeout:5s]",
		"postgres://app:secret@db/app?application_name=x&default_query_exec_mode=exec": "db 5432 app app secret map[application_name:x]",
		"postgres://app:secret@db/app?new_setting=1&my.setting=2":                      "db 5432 app app secret map[my.setting:2 new_setting:1]",
		"postgres://app:secret@db/app?ssl=true&connect_timeout=3":                      "db 5432 app app secret map[]",
		"postgres://app:secret@db/app?sslmode=disable&pool_max_conns=3":                "db 5432 app app secret map[]",
	} {
		cfg, warnings, err := Parse("DATABASE_URL", text)
		if err != nil || len(warnings) > 0 {
			t.Errorf("%q: %v %q", text, err, warnings)
			continue
		}
		c := cfg.ConnConfig
		var names []string
		for _, host := range hosts(c) {
			if len(names) == 0 || names[len(names)-1] != host {
				names = append(names, host)
			}
		}
		if got := fmt.Sprint(strings.Join(names, ","), " ", c.Port, " ", c.Database, " ", c.User, " ", c.Password, " ", c.RuntimeParams); got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// For a wrong variable of libpq, the error blamed the connection string.
func TestU17VariablesOfLibpqAreBlamedThemselves(t *testing.T) { // no t.Parallel: it sets variables
	for name, value := range map[string]string{
		"PGSSLMODE": "no-verify", "PGTARGETSESSIONATTRS": "x", "PGSERVICE": "hunter2", "PGSSLROOTCERT": "/hunter2", "PGSSLCERT": "/hunter2",
		"PGCONNECT_TIMEOUT": "x", "PGCHANNELBINDING": "x", "PGREQUIREAUTH": "x", "PGMINPROTOCOLVERSION": "x",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PGPASSWORD", "hunter2")
			t.Setenv(name, value)
			_, _, err := Parse("DATABASE_URL", "postgres://app:hunter2@db/app")
			if err == nil || !strings.Contains(err.Error(), "in the environment") || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v, want the variable named", err)
			}
		})
	}
}

// Go's parser accepts redis:user:password@host as a URL without a host, and the client then uses the local server.
func TestU17RedisWithoutSlashesIsNotTheLocalServer(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"redis:app:hunter2@db": "// must follow", "REDISS:app:hunter2@db:6379/0": "// must follow", "redis:/app:hunter2@db": "// must follow",
		"redis://app:hun/ter2@db": "%2F", "valkey:app:hunter2@db": `the scheme "valkey"`, "redis://app:hunter2@db:6379/0": "", "unix:///run/redis.sock": "",
	} {
		err := LookAtRedis(text)
		if got := fmt.Sprint(err); (err == nil) != (want == "") || !strings.Contains(got, want) || strings.Contains(got, "ter2") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// FuzzConnectionString builds strings with a password of any characters, encoded or not. No 6 characters of it in a row may appear in an error
// or a warning, nor in the names that a connection error would quote.
func FuzzConnectionString(f *testing.F) {
	for i := range templates {
		for _, password := range []string{"hunter2!", "p@ss#w/rd?", "a:b@c/d?e#f", "50%sure", "it's secret", `back\slash`, "semi;colon", "sp ace=equals", "://abcdef", "ünïcödé", "a&b&cdefgh", "[bracket]", "12/3456@7", "12345?abcdef"} {
			f.Add(byte(i), password)
		}
	}
	said := exampleHint + encodeHint + explain("", nil)
	for name, p := range parameters {
		said += " " + name + " " + p.tool + " " + p.remedy
	}
	f.Fuzz(func(t *testing.T, which byte, password string) {
		template := templates[int(which)%len(templates)]
		if distinct(password) < 6 || strings.Contains(password, "=") && !strings.Contains(template, "://") {
			return // in key=value pairs an = that is not quoted begins another pair, as the user's own
		}
		if strings.Contains(password, "=") && strings.Contains(template, "password=") {
			return
		}
		text := strings.ReplaceAll(template, "PASSWORD", password)
		told := ""
		check := func(cfg string, warnings []string, err error) {
			told += cfg + strings.Join(warnings, "\n")
			if err != nil {
				told += err.Error()
			}
		}
		cfg, warnings, err := Parse("DATABASE_URL", text)
		quoted := ""
		if err == nil {
			c := cfg.ConnConfig
			quoted = fmt.Sprint(hosts(c), c.User, c.Database, c.RuntimeParams)
		}
		check(quoted, warnings, err)
		check("", nil, LookAtRedis(strings.Replace(text, "postgres", "redis", 1)))
		runes := []rune(password)
		for i := 0; i+6 <= len(runes); i++ {
			piece := string(runes[i : i+6])
			if strings.Contains(told, piece) && !strings.Contains(said, piece) && !strings.Contains(template, piece) {
				t.Errorf("%q: %q is in %s", text, piece, told)
			}
		}
	})
}

var templates = []string{
	"postgres://app:PASSWORD@db.example:5432/app", "postgresql://app:PASSWORD@db.example/app?sslmode=require", "postgres://app:PASSWORD@db.example:port/app",
	"postgres://app:PASSWORD@db.example/app?schema=public&connection_limit=5", "postgres://app:PASSWORD@h1,h2:5433/app", "postgres://app:PASSWORD@[::1]/app",
	"postgres://app:PASSWORD@/app?host=/tmp", "postgresql+asyncpg://app:PASSWORD@db.example/app?ssl=require", "jdbc:postgresql://db.example/app?user=app&password=PASSWORD",
	"mysql://app:PASSWORD@db.example/app", "app:PASSWORD@db.example/app", "//app:PASSWORD@db.example/app", "PASSWORD", "PASSWORD@db.example",
	"postgres://db.example/app?user=app&password=PASSWORD", "postgres://db.example/app?user=app&password=PASSWORD&sslmode=no-verify",
	"host=db.example user=app password=PASSWORD dbname=app", "host=db.example user=app dbname=app password=PASSWORD", "password=PASSWORD host=db.example",
	"host=db.example user=app password='PASSWORD' dbname=app", "Host=db.example;Username=app;Password=PASSWORD;Database=app", "Host=db.example Username=app Password=PASSWORD",
	`"postgres://app:PASSWORD@db.example/app"`, "psql 'postgres://app:PASSWORD@db.example/app'", "postgres://app:PASSWORD@", "postgres://app:PASSWORD@db.example/app?bogus",
}

func distinct(s string) int {
	seen := map[rune]bool{}
	for _, r := range s {
		seen[r] = true
	}
	return len(seen)
}
