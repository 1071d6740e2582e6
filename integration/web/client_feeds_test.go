package web

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// TestClientBrowserFeeds watches rows of feeds with keys of each kind in a page, to each kind of end, by way of a proxy.
func TestClientBrowserFeeds(t *testing.T) {
	t.Parallel()
	db := harness.NewFeedsDatabase(t)
	s := newSite(t)
	i := harness.ServeReady(t, db.Serve)
	s.setTarget(t, i.URL)
	const text = `a/b, 50% "ä"?#`
	id := strings.Fields(db.SQL(t, `insert into exports (kind) values ('pdf') returning id`))[0]
	db.SQL(t, `insert into imports values ('`+text+`', 'running', 10), ('..', 'running', 20), ('gone', 'running', 30)`)
	db.SQL(t, `insert into mails default values`)

	p := openPage(t, s.URL)
	p.eval(t, fmt.Sprintf(`window.seen = {};
		window.watch = (name, feed, id) => import('auditstream-client').then(({ watchProgress }) => watchProgress(feed, id, {
			token: %q,
			onProgress: (row, { end }) => { (seen[name] ??= []).push(JSON.stringify(row) + (end ? ' end' : '')); },
			onState: (state, { error }) => { if (error) seen[name + ' error'] = error; },
		})).then((outcome) => { seen[name + ' outcome'] = outcome; });
		watch('export', 'exports', %q); watch('text', 'imports', %q); watch('several', 'imports', ['..', %[3]q]);
		watch('gone', 'imports', 'gone'); watch('all', 'exports', null);`, harness.AliceToken(t), strings.ToUpper(id), text))
	quoted, err := json.Marshal(text)
	harness.NoError(t, err)
	shows := func(name, last string) {
		t.Helper()
		p.wait(t, name+": "+last, fmt.Sprintf("seen[%q]?.at(-1) === %q", name, last))
	}
	ends := func(name, outcome string) {
		t.Helper()
		p.wait(t, name+"'s outcome", fmt.Sprintf("seen[%q] === %q", name+" outcome", outcome))
	}
	shows("export", `{"id":"`+id+`","status":"queued","progress":0,"kind":"pdf"}`)
	shows("all", `{"id":"`+id+`","status":"queued","progress":0,"kind":"pdf"}`)
	shows("text", `{"id":`+string(quoted)+`,"status":"running","progress":10}`)
	p.wait(t, "both", "seen.several?.length === 2")
	shows("gone", `{"id":"gone","status":"running","progress":30}`)

	db.SQL(t, `update exports set state = 'CANCELLED', done = 2`)
	shows("export", `{"id":"`+id+`","status":"cancelled","progress":50,"kind":"pdf"} end`)
	shows("all", `{"id":"`+id+`","status":"cancelled","progress":50,"kind":"pdf"} end`)
	ends("export", "done")
	db.SQL(t, `delete from imports where name = 'gone'`)
	ends("gone", "denied")
	p.wait(t, "why", "seen['gone error'] === 'No such row'")
	db.SQL(t, `update imports set state = 'completed', percent = 100`)
	ends("text", "done")
	ends("several", "done")

	p.eval(t, "watch('mail', 'mails', 1n)")
	shows("mail", `{"id":"1","status":"running","progress":0}`)
	db.SQL(t, `delete from mails`)
	shows("mail", `{"id":"1","status":"completed","progress":100}`)
	ends("mail", "done")
	p.eval(t, "watch('none', 'nothing', 1); watch('no key', 'exports', 1)")
	ends("none", "denied")
	ends("no key", "denied")
	p.wait(t, "why", "seen['none error'] === 'No such feed' && seen['no key error'] === 'Invalid id: give a UUID'")
}

// TestClientReactProgress mounts useProgress, gives it a row of another feed, and unmounts it.
func TestClientReactProgress(t *testing.T) {
	t.Parallel()
	db := harness.NewFeedsDatabase(t)
	s := newSite(t)
	i := harness.ServeReady(t, db.Serve)
	s.setTarget(t, i.URL)
	id := strings.Fields(db.SQL(t, `insert into exports (kind) values ('pdf') returning id`))[0]
	db.SQL(t, `insert into imports values ('a/b', 'running', 10)`)
	p := openPage(t, s.URL)
	p.module(t, fmt.Sprintf(`
import { createElement } from 'react';
import { createRoot } from 'react-dom/client';
import { useProgress } from 'auditstream-client/react';
function Row({ feed, id }) {
  const { progress, state, error } = useProgress(feed, id, { token: async () => %q });
  return [progress?.id, progress?.status, progress?.progress, progress?.kind, state, error].join(' ');
}
window.root = createRoot(document.querySelector('#root'));
window.render = (feed, id) => root.render(createElement(Row, { feed, id }));
render('exports', %q);`, harness.AliceToken(t), id))
	shows := func(what string) {
		t.Helper()
		p.wait(t, what, fmt.Sprintf("document.querySelector('#root').textContent === '%s'", what))
	}
	shows(id + " queued 0 pdf live ")
	db.SQL(t, `update exports set done = 3`)
	shows(id + " queued 75 pdf live ")
	db.SQL(t, `update exports set state = 'cancelled'`)
	shows(id + " cancelled 75 pdf done ")
	p.eval(t, "render('imports', 'a/b')")
	shows("a/b running 10  live ")
	p.eval(t, "root.unmount()")
	i.WaitMetric(t, `auditstream_streams_open{feed="imports"}`, harness.Exactly(0))
	p.quiet(t)
}
