package sql

import "fmt"

// An expression is SQL in which %[1]s stands for a column, such as a."progress". It must not raise an error for any value, because one row
// would then fail the read of all rows in the same query.
type expression string

func (e expression) of(ref string) string { return fmt.Sprintf(string(e), ref) }

const (
	// Lower case by the rules of "C", because those of Turkish turn FAILED into faıled.
	statusText   expression = `coalesce(btrim(lower((%[1]s) collate "C"), E' \t\r\n'), 'pending')`
	wholePercent expression = `least(greatest(coalesce(%[1]s, 0), 0), 100)::int`
	// Clamped before the cast, because 1e300 is not an int.
	percent    expression = `least(greatest(floor(coalesce(nullif(%[1]s, 'NaN'), 0)), 0), 100)::int`
	wholeCount expression = `case when %[1]s is not null then least(greatest(%[1]s, 0), 2147483647)::int end`
	// Through double precision, because 2147483647 as a real is rounded up and out of range.
	count expression = `case when %[1]s <> 'NaN' then least(greatest(floor(%[1]s::float8), 0), 2147483647)::int end`
	// Not through double precision, which cannot hold all values of numeric.
	numericCount expression = `case when %[1]s <> 'NaN' then least(greatest(floor(%[1]s), 0), 2147483647)::int end`
	wholeScore   expression = `%[1]s::float8`
	// JSON has no NaN and no Infinity.
	score expression = `case when %[1]s not in ('NaN', 'Infinity', '-Infinity') then %[1]s end`
	// Through text because 78.1::real::float8 is 78.0999984741211.
	realScore expression = `case when %[1]s not in ('NaN', 'Infinity', '-Infinity') then %[1]s::text::float8 end`
	// No value where double precision has none: what is too large is an error there, and so is what is too close to zero. NaN is
	// larger than everything.
	numericScore expression = `case when abs(%[1]s) < 1e-300 then 0 when abs(%[1]s) <= 1.7976931348623157e308 then %[1]s::float8 end`
	jsonbText    expression = `%[1]s #>> '{}'`
	// The JSON itself when its text cannot be had: \u0000 and half a surrogate pair are valid in json, but to convert them is an
	// error. The inner expression takes away what is harmless, escaped backslashes and whole pairs.
	// It takes seconds for a megabyte, so that of a long one that may have them the JSON itself is shown.
	jsonText expression = `case when strpos(%[1]s::text, '\u') = 0 then %[1]s #>> '{}' when octet_length(%[1]s::text) > 65536 then %[1]s::text when regexp_replace(%[1]s::text, '\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..', '', 'g')` +
		` ~ '\\u(0000|[dD][89a-fA-F])' then %[1]s::text else %[1]s #>> '{}' end`
	// jsonText where the server's encoding cannot hold every character that JSON can write.
	jsonTextASCII expression = `case when %[1]s::text ~ '\\u' then %[1]s::text else %[1]s #>> '{}' end`
)

// numbers are the expressions for each type that a number of ours may come from.
var numbers = map[string]map[string]expression{
	"progress":    {"int2": wholePercent, "int4": wholePercent, "int8": wholePercent, "float4": percent, "float8": percent, "numeric": percent},
	"geo_score":   {"int2": wholeScore, "int4": wholeScore, "int8": wholeScore, "float4": realScore, "float8": score, "numeric": numericScore},
	"total_pages": {"int2": wholeCount, "int4": wholeCount, "int8": wholeCount, "float4": count, "float8": count, "numeric": numericCount},
}
