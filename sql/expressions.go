package sql

import "fmt"

// An expression writes SQL for a column that is referred to as ref: a."progress", old."progress".
// None of them may be able to raise an error, whatever the column holds: one row would make the server's batched read
// fail for everybody, and in a trigger's condition it would make the application's UPDATE fail.
type expression func(ref string) string

func asIs(ref string) string   { return ref }
func asText(ref string) string { return ref + "::text" }

// statusText is lower case by the rules of "C": those of Turkish would make FAILED faıled.
func statusText(ref string) string {
	return fmt.Sprintf(`coalesce(lower(%s::text collate "C"), 'pending')`, ref)
}

func wholePercent(ref string) string {
	return fmt.Sprintf(`least(greatest(coalesce(%s, 0), 0), 100)::int`, ref)
}

// percent clamps before it casts: 1e300 is not an int.
func percent(ref string) string {
	return fmt.Sprintf(`least(greatest(floor(coalesce(nullif(%s, 'NaN'), 0)), 0), 100)::int`, ref)
}

func wholeCount(ref string) string {
	return fmt.Sprintf(`case when %[1]s is not null then least(greatest(%[1]s, 0), 2147483647)::int end`, ref)
}

// count goes through double precision because 2147483647 is not a real: it would round up and out of range.
func count(ref string) string {
	return fmt.Sprintf(`case when %[1]s <> 'NaN' then least(greatest(floor(%[1]s::float8), 0), 2147483647)::int end`, ref)
}

// numericCount stays numeric, which has values that are no double precision.
func numericCount(ref string) string {
	return fmt.Sprintf(`case when %[1]s <> 'NaN' then least(greatest(floor(%[1]s), 0), 2147483647)::int end`, ref)
}

func wholeScore(ref string) string { return ref + "::float8" }

// JSON has no NaN and no Infinity.
func score(ref string) string {
	return fmt.Sprintf(`case when %[1]s not in ('NaN', 'Infinity', '-Infinity') then %[1]s end`, ref)
}

// realScore goes through text because 78.1::real::float8 is 78.0999984741211.
func realScore(ref string) string {
	return fmt.Sprintf(`case when %[1]s not in ('NaN', 'Infinity', '-Infinity') then %[1]s::text::float8 end`, ref)
}

// numericScore has no value where double precision has none: what is too large is an error there, and so is what is
// too close to zero. NaN is larger than everything.
func numericScore(ref string) string {
	return fmt.Sprintf(`case when abs(%[1]s) < 1e-300 then 0 when abs(%[1]s) <= 1.7976931348623157e308 then %[1]s::float8 end`, ref)
}

func jsonbText(ref string) string { return ref + ` #>> '{}'` }

// jsonText shows the JSON itself when its text cannot be had: \u0000 and half a surrogate pair are valid in json, but
// to convert them is an error. The inner expression takes away what is harmless, escaped backslashes and whole pairs.
func jsonText(ref string) string {
	return fmt.Sprintf(`case when regexp_replace(%[1]s::text, '\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..', '', 'g')`+
		` ~ '\\u(0000|[dD][89a-fA-F])' then %[1]s::text else %[1]s #>> '{}' end`, ref)
}

// jsonTextASCII is jsonText where the server's encoding cannot hold every character that JSON can write.
func jsonTextASCII(ref string) string {
	return fmt.Sprintf(`case when %[1]s::text ~ '\\u' then %[1]s::text else %[1]s #>> '{}' end`, ref)
}
