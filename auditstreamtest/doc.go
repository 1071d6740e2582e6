// Package auditstreamtest is a server for other people's tests: "after my UPDATE a viewer sees 55" in ten lines.
//
//	func TestProgressIsSeen(t *testing.T) {
//		pool := yourDatabase(t) // a *pgxpool.Pool, or a URL
//		srv := auditstreamtest.New(t, pool, auditstreamtest.Table("public.audits"))
//		viewer := srv.Watch(t, "42", auditstreamtest.As("user-1"))
//		if _, err := pool.Exec(t.Context(), "update audits set progress = 55 where id = 42"); err != nil {
//			t.Fatal(err)
//		}
//		viewer.Wait(t, auditstreamtest.Progress(55))
//	}
//
// [New] adopts the table unless that was done, serves on loopback in this process, and is gone when the test ends. [Server].URL and
// [Server.Token] are for other clients, a browser, say. Tests may run in parallel, with a database each or one for all.
//
// # What is guaranteed
//
// Once [Server.Watch] has returned, every later commit that changes what is shown of the row is seen: by a state of its own, or by a later
// one that came so soon that both were read at once. So a test waits for what a row comes to, not for each step on its way, and sleeps
// nowhere. What is seen is what was committed: while the test's own transaction is open there is nothing to see, and Wait's failure says so.
//
// # Faults
//
// [Server.CutListener], [Server.PauseDatabase] and [Server.Restart] break what breaks in production. Viewers come back by themselves, as
// browsers do, and the guarantee holds through all of it.
package auditstreamtest
