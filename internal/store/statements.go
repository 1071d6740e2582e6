package store

import "fmt"

// statements are the queries of a feed: the read of several rows, of one row, and of the keys that owners have.
type statements struct{ several, one, ownerRows string }

// columns bounds what one row may cost: with left(), PostgreSQL decompresses only the beginning of a long text. An owner's name that is
// cut at 1 MiB matches nobody, because no token is as long. The coalesces are for handwritten views.
const columns = `
select p.%[1]s, left(p.user_id::text, 1048576), left(p.user_email::text, 1048576),
       left(coalesce(p.status::text, 'pending'), 1000), coalesce(p.progress, 0),
       left(p.message::text, $2::int), %[2]s, left(p.error::text, $2::int), left(%[3]s::text, 1048576), left(%[4]s::text, $2::int)`

func statementsOf(f *Feed) statements {
	key, id, array, numbers := "id", "id::text", "text", "null::float8, null::int"
	if f.isDefault() {
		key, id, numbers = "audit_id", "audit_id::text", "p.geo_score, p.total_pages"
	}
	keyOfSeveral, keyOfOne := "k.id", "$1::text"
	switch f.Key {
	case IntegerKeys:
		id, array, keyOfOne = key, "bigint", "$1::bigint"
	case UUIDKeys:
		keyOfSeveral, keyOfOne = "k.id::uuid", "$1::text::uuid"
	}
	group, fields := "null", "null"
	if f.Groups {
		group = "p.group_id"
	}
	if f.Fields {
		fields = "p.fields"
	}
	selectList := fmt.Sprintf(columns, id, numbers, group, fields)
	return statements{
		// A join instead of "= any($1)": from an equality, PostgreSQL derives an index condition on the application's own key column,
		// whatever integer type that column has. See the view in sql/install.sql.
		several: selectList + fmt.Sprintf(`
from unnest($1::%s[]) as k(id)
join %s as p on p.%s = %s`, array, f.View, key, keyOfSeveral),
		// The read after a single update. PostgreSQL keeps the plan of a prepared statement for one value. For an array, whose length
		// it does not know, it plans each time (plancache.c, choose_custom_plan).
		one: selectList + fmt.Sprintf(`
from %s as p where p.%s = %s`, f.View, key, keyOfOne),
		ownerRows: ownerRowsSQL(f, key, id),
	}
}
