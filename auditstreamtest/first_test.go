package auditstreamtest_test

import (
	"testing"

	"auditstream/auditstreamtest"
)

func TestProgressIsSeen(t *testing.T) {
	pool := yourDatabase(t)
	srv := auditstreamtest.New(t, pool, auditstreamtest.Table("public.audits"))
	viewer := srv.Watch(t, "42", auditstreamtest.As("user-1"))
	if _, err := pool.Exec(t.Context(), "update audits set progress = 55 where id = 42"); err != nil {
		t.Fatal(err)
	}
	viewer.Wait(t, auditstreamtest.Progress(55))
}
