package sql

import "strings"

// isArray reports whether the column is an array of a type of PostgreSQL's own. Those of others are shown as their output function writes them:
// to write one in JSON would run a cast of its elements to json, which anybody can define.
func (a *attribute) isArray() bool {
	return a.Category == "A" && strings.HasPrefix(a.builtInBase(), "_")
}

// arrayJSON returns the expression of such an array in JSON. Elements that JSON cannot write, or browsers cannot read, are texts: those of other
// types, and all numbers of an array that has one beyond 2^53.
func (a *attribute) arrayJSON(ref string) string {
	var array expression = `array_to_json(%[1]s::text[])::text`
	switch a.builtInBase() {
	case "_int2", "_int4", "_float4", "_float8", "_bool", "_text", "_varchar", "_json", "_jsonb":
		array = `array_to_json(%[1]s)::text`
	case "_int8", "_numeric": // NaN is larger than all numbers
		array = `array_to_json(case when 9007199254740992 < any (%[1]s) or -9007199254740992 > any (%[1]s) then null else %[1]s end)::text`
		array = `coalesce(` + array + `, array_to_json(%[1]s::text[])::text)`
	}
	return array.of(ref)
}
