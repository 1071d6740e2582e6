// The fake tells what the client tells with a server: each story is played to both, and what they said is compared.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { watchAudit, watchAudits, watchProgress } from '../client.js';
import { fakeProgress } from '../testing/index.js';

const bodyOf = (feed, id, state) => ({ [feed === 'audits' ? 'audit_id' : 'id']: /^\d+$/.test(id) ? Number(id) : id, ...state });

/** A server that sends what is played, to whoever watches. */
async function server(t) {
  const streams = new Set();
  const rows = new Map();
  const http = createServer((request, response) => {
    const [, feed, rest] = /^\/api\/v1\/sse\/([a-z]+)\/(.*?progress.*)$/.exec(request.url);
    const ids = /^progress\?ids=/.test(rest) ? rest.slice(13).split(',').map(decodeURIComponent) : rest === 'progress' ? null : [decodeURIComponent(rest.replace(/\/progress$/, ''))];
    const refused = ids?.map((id) => rows.get(`${feed}/${id}`)).find((row) => row?.denied);
    if (refused) return void response.writeHead(403, { 'Auditstream-Answer': 'final' }).end(JSON.stringify({ error: refused.denied }));
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write('retry: 50\n\n');
    const stream = { response, send(row) {
      if (row.feed !== feed || ids && !ids.includes(row.id)) return;
      response.write(`${row.end ? ': end\n' : ''}event: message\nid: ${row.n}\ndata: ${JSON.stringify(bodyOf(feed, row.id, row.state))}\n\n`);
    } };
    streams.add(stream);
    response.on('close', () => streams.delete(stream));
    for (const row of rows.values()) if (ids || !/completed|failed/.test(row.state.status)) stream.send(row);
  });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  t.after(() => { http.closeAllConnections(); http.close(); });
  let n = 0;
  return {
    base: `http://127.0.0.1:${http.address().port}`,
    play(feed, id, state, { end } = {}) {
      const row = { feed, id, state, end, n: ++n };
      rows.set(`${feed}/${id}`, row);
      for (const stream of streams) stream.send(row);
    },
    deny: (feed, id, denied) => rows.set(`${feed}/${id}`, { denied }),
  };
}

const running = (progress, more) => ({ status: 'running', progress, ...more });

// before: rows that are there; feed, ids: who watches them; then: what happens, each once the one before was told.
const stories = {
  'one audit to its end': { before: [['audits', '42', running(5)]], watch: (o) => watchAudit(42, o),
    then: [['audits', '42', running(55, { message: 'half' })], ['audits', '42', { status: 'completed', progress: 100, geo_score: 78.5 }]] },
  'one that has ended before': { before: [['audits', '42', { status: 'failed', progress: 10, error: 'no' }]], watch: (o) => watchAudit('42', o), then: [] },
  'several': { before: [['audits', '1', running(1)], ['audits', '2', running(2)]], watch: (o) => watchAudits([1, 2n], o),
    then: [['audits', '2', { status: 'failed', progress: 3 }], ['audits', '1', { status: 'completed', progress: 100 }]] },
  'a row of a feed with a key that is a text, and an end of its own': { before: [['jobs', 'a/b', running(0, { kind: 'mail' })]], watch: (o) => watchProgress('jobs', 'a/b', o),
    then: [['jobs', 'a/b', { status: 'cancelled', progress: 0 }, { end: true }]] },
  'all of the user’s': { before: [['jobs', '1', running(1)], ['jobs', '2', { status: 'completed', progress: 100 }]], watch: (o) => watchProgress('jobs', null, o),
    then: [['jobs', '3', running(3)], ['jobs', '1', { status: 'completed', progress: 100 }]], stops: true },
  'a refusal': { denied: ['audits', '42', 'Cross-user access denied'], before: [], watch: (o) => watchAudit(42, o), then: [] },
  'none': { before: [], watch: (o) => watchAudits([], o), then: [] },
};

/** What a watch is told while the story is played, and its outcome. */
async function told({ watch, then, stops }, base, play) {
  const log = [];
  const stop = new AbortController();
  let more;
  const wait = () => new Promise((resolve) => { more = resolve; });
  let next = wait();
  const say = (...what) => { log.push(what); };
  const outcome = watch({
    base, signal: stop.signal,
    onProgress: (progress, { type, data, end }) => { say('progress', progress, type, data, end); more(); },
    onState: (state, { error }) => say('state', state, error),
  });
  const begun = log.length; // what is told before the call returns
  const over = outcome.then(() => 'over');
  const steps = [...then];
  const states = () => log.filter(([what]) => what === 'progress').length;
  const first = states() + (stops ? 1 : 0);
  for (let expected = Math.max(first, 1); steps.length > 0; expected++) {
    while (states() < expected && await Promise.race([next, over]) !== 'over') next = wait();
    next = wait();
    play(...steps.shift());
  }
  if (stops) {
    while (states() < then.length + 1) { await next; next = wait(); }
    stop.abort();
  }
  return { begun, log, outcome: await outcome };
}

for (const [name, story] of Object.entries(stories)) {
  test(`the fake tells the same as the client: ${name}`, async (t) => {
    const real = await server(t);
    for (const row of story.before) real.play(...row);
    if (story.denied) real.deny(...story.denied);
    const want = await told(story, real.base, real.play);
    assert.ok(name === 'none' || want.log.length > 1, 'the client was told something');

    const fake = fakeProgress();
    t.after(() => fake.restore());
    const play = (feed, id, state, options) => fake.play(`${feed}/${id}`, state, options);
    for (const row of story.before) play(...row);
    if (story.denied) fake.deny(`${story.denied[0]}/${story.denied[1]}`, story.denied[2]);
    assert.deepEqual(await told(story, 'http://127.0.0.1:1', play), want);
  });
}

test('the fake without anything played is connecting, tells who watches, and ends as the signal says', async (t) => {
  const fake = fakeProgress();
  t.after(() => fake.restore());
  const states = [];
  const stop = new AbortController();
  const onState = (state, info) => states.push([state, info]);
  const one = watchProgress('jobs', 7, { signal: stop.signal, onState });
  const all = watchAudits(null, {});
  assert.deepEqual(fake.watched(), ['jobs/7', 'audits/']);
  await Promise.resolve();
  fake.connection('offline', { error: 'Connection lost', retryIn: 1000 });
  fake.play('jobs/7', running(1));
  fake.deny('8');
  assert.deepEqual(states, [['connecting', {}], ['offline', { error: 'Connection lost', retryIn: 1000 }], ['live', {}]]);
  stop.abort();
  assert.equal(await one, undefined);
  assert.deepEqual(fake.watched(), ['audits/']);
  fake.restore();
  assert.equal(await all, undefined);
  fake.play('jobs/7', running(2));
  assert.equal(states.length, 3, 'nothing is told after the end');
});

test('a state of the fake that ends everything while it is told ends nothing else', async (t) => {
  const fake = fakeProgress();
  t.after(() => fake.restore());
  const stop = new AbortController();
  let calls = 0;
  const outcome = watchAudits([1, 2], { signal: stop.signal, onProgress: () => { calls++; stop.abort(); } });
  await Promise.resolve();
  fake.play(1, running(1));
  fake.play(2, running(1));
  assert.equal(await outcome, undefined);
  assert.equal(calls, 1);
});

test('mistakes with the fake name what is wrong', (t) => {
  const fake = fakeProgress();
  t.after(() => fake.restore());
  assert.throws(() => fakeProgress(), /in place already: call restore\(\)/);
  assert.throws(() => fake.play('42', { progress: 5 }), /play\("42"\): no status; give a state like/);
  assert.throws(() => fake.play('', running(1)), /no row is called ""/);
  assert.throws(() => fake.play('jobs/', running(1)), /no row is called "jobs\/": give an id like '42', or FEED\/KEY/);
});
