package store

import "fmt"

// statements are a feed's queries.
type statements struct{ several, one, owned string }

// columns bounds what one row may cost: of a compressed text PostgreSQL then unpacks only the beginning. A token is never as long
// as what is left of an owner's name, so that a part of one is nobody's. The coalesces are for views written by hand.
const columns = `
select p.%[1]s, left(p.user_id::text, 1048576), left(p.user_email::text, 1048576), left(coalesce(p.status::text, 'pending'), 1000), coalesce(p.progress, 0),
       left(p.message::text, $2::int), %[2]s, left(p.error::text, $2::int), left(%[3]s::text, 1048576), left(%[4]s::text, $2::int)`

func statementsOf(f *Feed) statements {
	key, id, array, numbers := "id", "id::text", "text", "null::float8, null::int"
	if f.isDefault() {
		key, id, numbers = "audit_id", "audit_id::text", "p.geo_score, p.total_pages"
	}
	asked, alone := "k.id", "$1::text"
	switch f.Key {
	case IntegerKeys:
		id, array, alone = key, "bigint", "$1::bigint"
	case UUIDKeys:
		asked, alone = "k.id::uuid", "$1::text::uuid"
	}
	group, fields := "null", "null"
	if f.Groups {
		group = "p.group_id"
	}
	if f.Fields {
		fields = "p.fields"
	}
	shown := fmt.Sprintf(columns, id, numbers, group, fields)
	return statements{
		// It joins instead of using "= any($1)" because PostgreSQL derives an index condition on the application's own key column from an
		// equality, whatever integer type that column has; see the view in sql/install.sql.
		several: shown + fmt.Sprintf(`
from unnest($1::%s[]) as k(id)
join %s as p on p.%s = %s`, array, f.View, key, asked),
		// The read of an update that comes alone. Of an array PostgreSQL does not know how long it is, and plans each time it is
		// prepared or not (plancache.c, choose_custom_plan); the plan for one value is kept.
		one: shown + fmt.Sprintf(`
from %s as p where p.%s = %s`, f.View, key, alone),
		owned: ownedSQL(f, key, id),
	}
}
