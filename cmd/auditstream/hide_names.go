package main

import (
	"log/slog"
	"regexp"
	"strings"
)

// connectPrefix matches the beginning of pgx's connection errors. The server's text behind it may quote the two names again.
var connectPrefix = regexp.MustCompile("(?s)failed to connect to `user=(.*?) database=(.*?)`:")

// serverNames matches further names in English texts of servers and poolers: the role that a parameter sets, and PgBouncer's unquoted names.
var serverNames = regexp.MustCompile(`(?i)\b((?:role|user|database)(?: name)?:? )("[^"]*"|\S+)( \(SQLSTATE| does not exist|$)`)

// hideNames replaces the names of user and database in an error's text. It knows the quotation marks of PostgreSQL's other languages, too.
func hideNames(text string) string {
	for _, names := range connectPrefix.FindAllStringSubmatch(text, -1) {
		for _, name := range names[1:] {
			if name != "" {
				quoted := regexp.MustCompile("([\"'`\\p{Pi}\\p{Pf}\\p{Ps}][\\s\u00a0]?)" + regexp.QuoteMeta(name) + "([\\s\u00a0]?[\"'`\\p{Pi}\\p{Pf}\\p{Pe}])")
				text = quoted.ReplaceAllString(text, "$1...$2")
			}
		}
	}
	text = serverNames.ReplaceAllString(text, `${1}"..."$3`)
	return connectPrefix.ReplaceAllLiteralString(text, "failed to connect:")
}

// hideNamesInErrors is a slog.HandlerOptions.ReplaceAttr: the log shows the names of user and database at the level debug only.
func hideNamesInErrors(level slog.Leveler) func([]string, slog.Attr) slog.Attr {
	return func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() != slog.KindAny { // Any would allocate for each number and text of each line
			return a
		}
		if err, ok := a.Value.Any().(error); ok && level.Level() > slog.LevelDebug {
			text := err.Error()
			if strings.Contains(text, "failed to connect") {
				a.Value = slog.StringValue(hideNames(text))
			}
		}
		return a
	}
}
