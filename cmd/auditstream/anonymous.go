package main

import (
	"log/slog"
	"regexp"
	"strings"
)

// connecting is how pgx begins an error of connecting. What the server then says may quote the two names again.
var connecting = regexp.MustCompile("(?s)failed to connect to `user=(.*?) database=(.*?)`:")

// named is what servers and poolers name besides, in English: the role that a parameter sets, and PgBouncer's without quotes.
var named = regexp.MustCompile(`(?i)\b((?:role|user|database)(?: name)?:? )("[^"]*"|\S+)( \(SQLSTATE| does not exist|$)`)

// anonymous takes the names of user and database out of an error's text. Other quotes are PostgreSQL's in other languages.
func anonymous(text string) string {
	for _, names := range connecting.FindAllStringSubmatch(text, -1) {
		for _, name := range names[1:] {
			if name != "" {
				quoted := regexp.MustCompile("([\"'`\\p{Pi}\\p{Pf}\\p{Ps}][\\s\u00a0]?)" + regexp.QuoteMeta(name) + "([\\s\u00a0]?[\"'`\\p{Pi}\\p{Pf}\\p{Pe}])")
				text = quoted.ReplaceAllString(text, "$1...$2")
			}
		}
	}
	text = named.ReplaceAllString(text, `${1}"..."$3`)
	return connecting.ReplaceAllLiteralString(text, "failed to connect:")
}

// anonymousErrors is a slog.HandlerOptions.ReplaceAttr: only at debug does the log say as whom we connect, and to which database.
func anonymousErrors(level slog.Leveler) func([]string, slog.Attr) slog.Attr {
	return func(_ []string, a slog.Attr) slog.Attr {
		if err, ok := a.Value.Any().(error); ok && level.Level() > slog.LevelDebug {
			text := err.Error()
			if strings.Contains(text, "failed to connect") {
				a.Value = slog.StringValue(anonymous(text))
			}
		}
		return a
	}
}
