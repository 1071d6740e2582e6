// Package auditstreamtest runs a server inside your test: "after my UPDATE a viewer sees 55" in ten lines.
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
// [New] adopts the table if it is not adopted yet, serves on loopback in this process, and stops when the test ends. [Server].URL and
// [Server.Token] are for other clients, for example a browser. Tests may run in parallel, each with its own database or all with one.
//
// # What is guaranteed
//
// Once [Server.Watch] has returned, every later commit that changes a shown field of the row is seen: as a state of its own, or as part of
// a later state, if two commits came so fast that one read found both. So a test waits for the row's final state, not for each step, and
// never sleeps. Only committed changes are seen: while the test's own transaction is open nothing comes, and Wait's failure says so.
//
// # Faults
//
// [Server.CutListener], [Server.PauseDatabase] and [Server.Restart] cause the failures that production has. Viewers reconnect by
// themselves, as browsers do, and the guarantee holds meanwhile.
//
// # Read the code
//
// The rule that keeps it right: a viewer is an HTTP client of a real service, and faults break real connections; nothing is faked. Tests of
// other programs call this package; it calls the root package, and of the internal ones sql (for its guesses) and tcpproxy (for faults).
//
// Files, in the order in which to read them: server.go (New), viewer.go (Watch and Wait), events.go (the stream's format), failure.go (why a
// state did not come), faults.go, network.go (the connections that faults break), tail.go (the log's end).
package auditstreamtest
