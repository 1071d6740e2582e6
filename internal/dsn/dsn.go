// Package dsn reads the connection strings that people have: PostgreSQL's own, and those that they copy from other tools.
//
// Its one rule: nothing of a string that may be a part of a password gets into an error, a warning, or what a connection would later
// quote, the names of host, user and database. So a string is looked at before it is parsed, and names are quoted from lists alone.
package dsn

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const example = "give one like postgres://user:password@host:5432/database"

// Parse reads the connection string of the variable called name, as a URL or as key=value pairs. The warnings say which parameters of
// other tools were left out. The error is for the operator: it begins with the name, says what to do, and shows nothing secret.
func Parse(name, text string) (*pgxpool.Config, []string, error) {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("invalid %s (not shown, it may hold a password): %s; %s", name, fmt.Sprintf(format, args...), example)
	}
	text = strings.TrimSpace(text) // a file that holds it ends in a line break
	text, err := lookAt(text)
	if err != nil {
		return nil, nil, refuse("%v", err)
	}
	conn, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, nil, refuse("%s", why(text, err))
	}
	if slices.ContainsFunc(hosts(conn), func(host string) bool { return !hostName.MatchString(host) }) {
		return nil, nil, refuse("the host is no name, address or directory; %s", encode)
	}
	cfg, err := pgxpool.ParseConfig(text)
	// pgxpool panics at a period of 0, and makes as many goroutines as it is asked for connections.
	if err != nil || cfg.HealthCheckPeriod <= 0 || cfg.MinConns < 0 || cfg.MinIdleConns < 0 || cfg.MinConns > cfg.MaxConns || cfg.MinIdleConns > cfg.MaxConns {
		return nil, nil, refuse("a setting of the pool cannot be; give pool_max_conns from 1, pool_min_conns and pool_min_idle_conns from 0 to that, " +
			"and durations like 30s, for pool_health_check_period longer than 0")
	}
	warnings, err := settle(cfg.ConnConfig.RuntimeParams, mayName(text))
	if err != nil {
		return nil, nil, refuse("%v", err)
	}
	for i, warning := range warnings {
		warnings[i] = name + ": " + warning
	}
	return cfg, warnings, nil
}

const encode = "percent-encode what is special in user, password and parameters (@ is %40, / is %2F, % is %25, = is %3D, a blank %20)"

// lookAt finds what must not be parsed, because its parts would be taken for others, and returns the text with its scheme as pgx wants it.
func lookAt(text string) (string, error) {
	if text == "" { // of nothing pgx makes the local server
		return "", errors.New("it is empty")
	}
	scheme, rest, isURL := cutScheme(text)
	switch {
	case foreign[scheme] || foreign[strings.SplitN(scheme, "+", 2)[0]] && drivers[scheme]:
		return "", fmt.Errorf("the scheme %q is not PostgreSQL's; write postgres:// and no parameters of other tools", scheme)
	case scheme != "postgres" && scheme != "postgresql" && ours.MatchString(text):
		return "", errors.New("something stands before postgres://, a quotation mark or a command; leave it out, behind the string as well")
	case !isURL && semicolons.MatchString(text):
		return "", errors.New("it is made of Key=value; as ADO.NET's and ODBC's are, which is not understood")
	case !isURL && !pairs.MatchString(text):
		return "", errors.New("it begins neither with postgres:// nor with a key and =")
	case !isURL:
		return text, nil
	case scheme != "postgres" && scheme != "postgresql":
		return "", errors.New("its scheme is not PostgreSQL's; write postgres://")
	}
	authority, _, _ := strings.Cut(rest, "/")
	switch {
	case strings.ContainsFunc(rest, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", errors.New("there is a line break or another invisible character in it")
	case strings.Count(rest, "@") > 1 || strings.Count(rest, "@") != strings.Count(authority, "@"):
		return "", errors.New("an @ stands where none may, or a / in the password; " + encode)
	}
	return "postgres://" + rest, nil
}

// cutScheme is the scheme in lower case, and whether the text is a URL of it. Of a scheme that needs no slashes, as in file:name and
// jdbc:postgresql:name, only whether it is another tool's is known.
func cutScheme(text string) (scheme, rest string, isURL bool) {
	scheme, rest, isURL = strings.Cut(text, "://")
	if !isURL || strings.ContainsAny(scheme, "=@/'\" \t\r\n") {
		scheme, rest, isURL = strings.Cut(text, ":")
		if scheme = strings.ToLower(scheme); !foreign[scheme] {
			return "", text, false
		}
	}
	return strings.ToLower(scheme), rest, isURL
}

var (
	// ours is a URL of PostgreSQL's, whatever stands before it: a quotation mark, export NAME=, a byte order mark.
	ours       = regexp.MustCompile(`(?i)(^|[^a-z0-9+._-])postgres(ql)?://`)
	semicolons = regexp.MustCompile(`(?i)(^|;)\s*` + adoKey + `[^;]*;\s*(` + adoKey + `|$)`)
	pairs      = regexp.MustCompile(`^[A-Za-z0-9_.-]+\s*=`)
	// hostName is a name, an address, or the directory of a socket. pgx has taken lists apart.
	hostName = regexp.MustCompile(`^([\pL\pN._:%-]*|/[\pL\pN._:%/ -]*)$`)
	secrets  = regexp.MustCompile(`(?i)pass|pwd|secret|token`)
)

const adoKey = `(host|server|data source|driver|username|user id|uid|user|password|pwd|database|initial catalog|port|ssl ?mode)\s*=`

func hosts(cfg *pgx.ConnConfig) []string {
	all := []string{cfg.Host}
	for _, other := range cfg.Fallbacks {
		all = append(all, other.Host)
	}
	return all
}

// LookAtRedis is lookAt for a URL of Redis', whose parser takes its parts for others as well. The error is a predicate of the variable.
func LookAtRedis(text string) error {
	scheme, rest, isURL := cutScheme(strings.TrimSpace(text))
	after := ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 && scheme != "unix" {
		after = rest[i:]
	}
	const give = "; give one like redis://user:password@host:6379/0, with rediss for TLS"
	switch {
	case foreignToRedis[scheme]:
		return fmt.Errorf("not a Redis URL (not shown, it may hold a password): the scheme %q is none of redis, rediss and unix%s", scheme, give)
	case (scheme == "redis" || scheme == "rediss") && !strings.Contains(text, "://"): // Go's parser takes it for one without a host
		return errors.New("not a Redis URL (not shown, it may hold a password): // must follow the scheme" + give)
	case isURL && strings.ContainsAny(after, "@#"):
		return errors.New("not a Redis URL (not shown, it may hold a password): " + encode + give)
	}
	return nil
}

// mayName reports whether the name of an unknown parameter is no part of a password: in a URL that has none among its parameters.
func mayName(text string) bool {
	_, query, _ := strings.Cut(text, "?")
	return strings.HasPrefix(text, "postgres://") && !secrets.MatchString(query)
}

// why is what pgx's error comes to, which quotes.
func why(text string, err error) string {
	if _, err := pgx.ParseConfig("postgres://user@localhost/database"); err != nil {
		return "one of libpq's variables in the environment cannot be (" + strings.Join(libpqVariables(), ", ") + "); correct or unset it"
	}
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Sprintf("a file cannot be read that sslrootcert, sslcert, sslkey or service names: %v", file.Err)
	}
	for _, c := range choices {
		if instead := c.refused(text); instead != "" {
			return instead
		}
	}
	return "it cannot be parsed; an IPv6 address stands in [brackets], a port is a number, a parameter is NAME=value; " + encode
}

// libpqVariables are the names of those that are set.
func libpqVariables() (names []string) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// settle takes the parameters out of params that mean nothing here, says so, and refuses those that mean something that would be lost.
// What else is unknown PostgreSQL may know. With name a name that is in no list may be shown.
func settle(params map[string]string, name bool) (warnings []string, err error) {
	for _, key := range slices.Sorted(maps.Keys(params)) {
		lower := strings.ToLower(key)
		base, _, _ := strings.Cut(lower, "[") // variables[statement_timeout]
		p, listed := parameters[base]
		switch {
		case libpq[lower] && lower != key:
			return nil, fmt.Errorf("write the parameter %s in lower case", lower)
		case listed && p.refuse && !slices.Contains(p.harmless, strings.ToLower(params[key])):
			return nil, fmt.Errorf("the parameter %s is %s, and without it the connection would be another one: %s", base, p.of, p.remedy)
		case listed:
			delete(params, key)
			warnings = append(warnings, strings.TrimSuffix(fmt.Sprintf("the parameter %s is %s and is left out: %s", base, p.of, p.remedy), ": "))
		case strings.HasPrefix(lower, "pool_"):
			delete(params, key)
			warnings = append(warnings, "a parameter that begins with pool_ is none of the pool's and is left out")
		case settings[lower]:
		case !name || !setting.MatchString(key):
			return nil, errors.New("a parameter of it is not known (not shown, it may be a part of the password); " + encode + ", or leave it out")
		}
	}
	return warnings, nil
}

// setting is what a setting of PostgreSQL may be called, those of extensions among them.
var setting = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
