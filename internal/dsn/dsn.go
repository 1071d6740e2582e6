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

const exampleHint = "give one like postgres://user:password@host:5432/database"

// Parse reads the connection string of the variable name, which is a URL or key=value pairs. The warnings say which parameters of other tools
// were left out. The error is for the operator: it begins with the variable's name, says what to do, and shows nothing secret.
func Parse(name, text string) (*pgxpool.Config, []string, error) {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("invalid %s (not shown, it may hold a password): %s; %s", name, fmt.Sprintf(format, args...), exampleHint)
	}
	text = strings.TrimSpace(text) // a string from a file ends with a line break
	text, err := checkShape(text)
	if err != nil {
		return nil, nil, refuse("%v", err)
	}
	conn, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, nil, refuse("%s", explain(text, err))
	}
	if slices.ContainsFunc(hosts(conn), func(host string) bool { return !hostName.MatchString(host) }) {
		return nil, nil, refuse("the host is not a name, an address or a directory; %s", encodeHint)
	}
	cfg, err := pgxpool.ParseConfig(text)
	// pgxpool panics at a health check period of 0, and starts a goroutine for each connection of pool_min_conns.
	if err != nil || cfg.HealthCheckPeriod <= 0 || cfg.MinConns < 0 || cfg.MinIdleConns < 0 || cfg.MinConns > cfg.MaxConns || cfg.MinIdleConns > cfg.MaxConns {
		return nil, nil, refuse("a setting of the pool is invalid; give pool_max_conns from 1, pool_min_conns and pool_min_idle_conns from 0 to that, " +
			"and durations like 30s, for pool_health_check_period longer than 0")
	}
	warnings, err := checkParameters(cfg.ConnConfig.RuntimeParams, canShowNames(text))
	if err != nil {
		return nil, nil, refuse("%v", err)
	}
	for i, warning := range warnings {
		warnings[i] = name + ": " + warning
	}
	return cfg, warnings, nil
}

const encodeHint = "percent-encode what is special in user, password and parameters (@ is %40, / is %2F, % is %25, = is %3D, a blank %20)"

// checkShape refuses strings that pgx would split at the wrong places, and returns the text with the scheme postgres.
func checkShape(text string) (string, error) {
	if text == "" { // pgx would use the local server
		return "", errors.New("it is empty")
	}
	scheme, rest, isURL := cutScheme(text)
	switch {
	case foreignSchemes[scheme]:
		return "", fmt.Errorf("the scheme %q is not PostgreSQL's; write postgres:// and no parameters of other tools", scheme)
	case scheme != "postgres" && scheme != "postgresql" && embeddedURL.MatchString(text):
		return "", errors.New("something stands before postgres://, a quotation mark or a command; leave it out, behind the string as well")
	case !isURL && semicolons.MatchString(text):
		return "", errors.New("it is made of Key=value; as ADO.NET's and ODBC's are, which is not understood")
	case !isURL && !keyValue.MatchString(text):
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
		return "", errors.New("an @ stands where none may, or a / in the password; " + encodeHint)
	}
	return "postgres://" + rest, nil
}

// cutScheme returns the scheme in lower case, and whether the text is a URL. A scheme without slashes, as in file:name and
// jdbc:postgresql:name, is recognised only when it is in the list of foreign schemes.
func cutScheme(text string) (scheme, rest string, isURL bool) {
	scheme, rest, isURL = strings.Cut(text, "://")
	if !isURL || strings.ContainsAny(scheme, "=@/'\" \t\r\n") {
		scheme, rest, isURL = strings.Cut(text, ":")
		if scheme = strings.ToLower(scheme); !foreignSchemes[scheme] {
			return "", text, false
		}
	}
	return strings.ToLower(scheme), rest, isURL
}

var (
	// embeddedURL matches a PostgreSQL URL with anything before it: a quotation mark, export NAME=, a byte order mark.
	embeddedURL = regexp.MustCompile(`(?i)(^|[^a-z0-9+._-])postgres(ql)?://`)
	semicolons  = regexp.MustCompile(`(?i)(^|;)\s*` + adoKey + `[^;]*;\s*(` + adoKey + `|$)`)
	keyValue    = regexp.MustCompile(`^[A-Za-z0-9_.-]+\s*=`)
	// hostName matches a name, an address, or the directory of a socket. pgx has split lists of hosts.
	hostName    = regexp.MustCompile(`^([\pL\pN._:%-]*|/[\pL\pN._:%/ -]*)$`)
	secretWords = regexp.MustCompile(`(?i)pass|pwd|secret|token`)
)

const adoKey = `(host|server|data source|driver|username|user id|uid|user|password|pwd|database|initial catalog|port|ssl ?mode)\s*=`

// hosts returns all hosts of a connection string.
func hosts(cfg *pgx.ConnConfig) []string {
	all := []string{cfg.Host}
	for _, other := range cfg.Fallbacks {
		all = append(all, other.Host)
	}
	return all
}

// LookAtRedis refuses Redis URLs that the parser would split at the wrong places. The caller puts the variable's name before the error.
func LookAtRedis(text string) error {
	scheme, rest, isURL := cutScheme(strings.TrimSpace(text))
	after := ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 && scheme != "unix" {
		after = rest[i:]
	}
	const give = "; give one like redis://user:password@host:6379/0, with rediss for TLS"
	switch {
	case foreignRedisSchemes[scheme]:
		return fmt.Errorf("not a Redis URL (not shown, it may hold a password): the scheme %q is none of redis, rediss and unix%s", scheme, give)
	case (scheme == "redis" || scheme == "rediss") && !strings.Contains(text, "://"): // Go's parser accepts it as a URL without a host
		return errors.New("not a Redis URL (not shown, it may hold a password): // must follow the scheme" + give)
	case isURL && strings.ContainsAny(after, "@#"):
		return errors.New("not a Redis URL (not shown, it may hold a password): " + encodeHint + give)
	}
	return nil
}

// canShowNames reports whether a message may show the name of an unknown parameter: only for a URL without a secret among its parameters,
// because otherwise the name may be part of a password.
func canShowNames(text string) bool {
	_, query, _ := strings.Cut(text, "?")
	return strings.HasPrefix(text, "postgres://") && !secretWords.MatchString(query)
}

// explain returns the cause of pgx's error without its quotations.
func explain(text string, err error) string {
	if _, err := pgx.ParseConfig("postgres://user@localhost/database"); err != nil {
		return "one of libpq's variables in the environment is invalid (" + strings.Join(libpqVariables(), ", ") + "); correct or unset it"
	}
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Sprintf("a file cannot be read that sslrootcert, sslcert, sslkey or service names: %v", file.Err)
	}
	for _, c := range enumeratedParameters {
		if instead := c.wrongValue(text); instead != "" {
			return instead
		}
	}
	return "it cannot be parsed; an IPv6 address stands in [brackets], a port is a number, a parameter is NAME=value; " + encodeHint
}

// libpqVariables returns the names of libpq's variables in the environment.
func libpqVariables() (names []string) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// checkParameters removes from params those that have no meaning here, with a warning, and refuses those without which the connection would be
// another one. Other unknown parameters stay, because PostgreSQL may know them. With name, a name that is in no list may be shown.
func checkParameters(params map[string]string, name bool) (warnings []string, err error) {
	for _, key := range slices.Sorted(maps.Keys(params)) {
		lower := strings.ToLower(key)
		base, _, _ := strings.Cut(lower, "[") // variables[statement_timeout]
		p, listed := parameters[base]
		switch {
		case libpqParameters[lower] && lower != key:
			return nil, fmt.Errorf("write the parameter %s in lower case", lower)
		case listed && p.refuse && !slices.Contains(p.harmless, strings.ToLower(params[key])):
			return nil, fmt.Errorf("the parameter %s is %s, and without it the connection would be another one: %s", base, p.tool, p.remedy)
		case listed:
			delete(params, key)
			warnings = append(warnings, strings.TrimSuffix(fmt.Sprintf("the parameter %s is %s and is left out: %s", base, p.tool, p.remedy), ": "))
		case strings.HasPrefix(lower, "pool_"):
			delete(params, key)
			warnings = append(warnings, "a parameter that begins with pool_ is none of the pool's and is left out")
		case sessionSettings[lower]:
		case !name || !settingName.MatchString(key):
			return nil, errors.New("a parameter of it is not known (not shown, it may be a part of the password); " + encodeHint + ", or leave it out")
		}
	}
	return warnings, nil
}

// settingName matches the name of a setting of PostgreSQL or of an extension.
var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
