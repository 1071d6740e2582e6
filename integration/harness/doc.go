// Package harness is what the packages of integration tests share: the built binary as processes, clients of its API, and what stands
// beside it.
//
// The one rule: nothing of ours is linked in but test helpers. A test speaks to the binary as users do, by environment variables, HTTP,
// SQL through psql, and signals, so what passes holds for users.
//
// A package of tests calls [Main] from its TestMain. What every test shares is checked by itself, when a server under test is closed: no
// token, key, password or text of a row is in what it printed (secrets.go), its answers are as openapi.yaml says (traffic.go,
// description.go, judgement.go), and it has ended with status 0 and without a data race (serve.go).
//
// What to use for what:
//
//   - a database: [NewDatabase], empty with the table of audits.sql and installed; [Database.Insert], [Database.SQL]; [Adopt] for a server
//     of the test's own
//   - a server: [ServeNew], ready and with a database of its own, [ServeReady], [Serve]; [Launch] where the test ends it; [BeginServe] where it must not start; [OverHTTP1And2] for a test in both versions
//   - a command that ends: [RunCommand], [TryCommand]
//   - what the server says: [Instance.WaitLog], [Instance.WaitReady], [Instance.Metric]
//   - a stream, event by event and literally: [Instance.Watch], [Instance.Open]
//   - viewers, of whom only the newest state matters: [Instance.View], [Instance.Crowd]; that connect again by themselves: [FollowAlways]
//   - an answer that is no stream: [Instance.Ask], [Instance.AskAs], [Instance.WaitAnswer]; bytes on a connection: [Dial], [Trickle],
//     [Instance.RawClient]
//   - what must be so: [NoError], [WantIn], [WantHeaders]
//   - tokens: [AliceToken], [Token], [SignToken]; an issuer with keys: [NewIssuer]
//   - time: [Eventually] and [Again] for what must happen, [Measure] for what must be fast, [NewStopwatch] for many updates
//   - another program: [StartProgram], [StartNginx], [StartPgBouncer]; [NodeProject], [NodeTest]; [OpenTerminal] types a document's commands
//   - a file of the repository: [Path], [Document]; [DependsOn] where another program reads it
//
// What only one of the packages needs is in that package. What a second one comes to need moves here.
package harness
