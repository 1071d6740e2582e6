// What client.test.mjs leaves: several audits, polling, AuthEventSource. Against a server that a test scripts by path.

import assert from 'node:assert/strict';
import { getEventListeners, once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { AuthEventSource, watchAudit, watchAudits } from '../client.js';

const state = (id, status, progress, eventId = `${id}-${progress}`) =>
  `id: ${eventId}\ndata: {"audit_id":${id},"status":"${status}","progress":${progress}}\n\n`;
const open = (response, ...blocks) => {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  response.write(blocks.join('') || ' ');
};

async function serve(t, handle) {
  const requests = [];
  const server = createServer((request, response) => {
    requests.push({ url: request.url, ...request.headers });
    handle(request, response, requests.filter(({ url }) => url === request.url).length);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { base: `http://127.0.0.1:${server.address().port}`, requests };
}

/** Timers of exactly so many ms fire at once. */
function soon(t, time) {
  const timeout = globalThis.setTimeout;
  t.mock.method(globalThis, 'setTimeout', (f, ms, ...args) => timeout(f, ms === time ? 1 : ms, ...args));
}

/** What takes silence for a fault is tried with longer ones before it fails: the machine may stand still for a moment. */
const patiently = (attempt) => async (t) => {
  for (const heartbeat of [100, 1000]) {
    try {
      return await attempt(t, heartbeat);
    } catch (error) {
      t.diagnostic(`once more, after ${error.message}`);
    }
  }
  return attempt(t, 5000);
};

test('watchAudits: one connection, done when all have ended', async (t) => {
  const { base, requests } = await serve(t, (request, response) => {
    open(response, state(3, 'running', 1), state(1, 'completed', 100), state(2, 'failed', 5), state(3, 'completed', 100));
  });
  const seen = [];
  assert.equal(await watchAudits([3, 1, 2], { base, token: 'T', onProgress: (p) => seen.push([p.audit_id, p.progress]) }), 'done');
  assert.deepEqual(seen, [[3, 1], [1, 100], [2, 5], [3, 100]]);
  assert.deepEqual(requests.map(({ url }) => url), ['/api/v1/sse/audits/progress?ids=3,1,2']);
});

for (const none of [null, undefined]) test(`watchAudits: with ${none} it goes on when all have ended`, async (t) => {
  const stop = new AbortController();
  const { base, requests } = await serve(t, (request, response, n) => {
    if (n === 1) open(response, 'retry: 1\n', state(1, 'completed', 100)), response.end();
    else open(response, state(2, 'running', 7));
  });
  const outcome = await watchAudits(none, {
    base, signal: stop.signal, onProgress: (p) => { if (p.audit_id === 2) stop.abort(); },
  });
  assert.equal(outcome, undefined);
  assert.deepEqual(requests.map(({ url }) => url), Array(2).fill('/api/v1/sse/audits/progress'));
});

test('watchAudits: no audits are done at once, and are not all audits', async () => {
  assert.equal(await watchAudits([], { base: 'http://127.0.0.1:1' }), 'done');
});

test('watchAudits: without ids it is live before there is any audit, and not when refused for now', async (t) => {
  const { base } = await serve(t, (request, response, n) => {
    open(response, 'retry: 1\n\n');
    if (n === 1) response.end('data: {"error":"Too many streams"}\n\n');
  });
  const stop = new AbortController();
  const states = [];
  await watchAudits(null, { base, signal: stop.signal, onState: (state) => { states.push(state); if (state === 'live') stop.abort(); } });
  assert.ok(['connecting,offline,live', 'connecting,live'].includes(states.join()), states.join());
});

test('watchAudits: without ids and streams there is nothing to poll, which is told', async (t) => {
  const { base } = await serve(t, () => {}); // never an answer
  const stop = new AbortController();
  const errors = [];
  await watchAudits(null, { base, heartbeat: 50, signal: stop.signal, onState: (state, { error }) => {
    if (error) errors.push([state, error]), stop.abort();
  } });
  assert.deepEqual(errors, [['offline', 'Nothing comes through']]);
});

test('watchAudits: without ids an audit that has gone is no longer polled, and refuses nothing', patiently(async (t, heartbeat) => {
  const { base } = await serve(t, (request, response, n) => {
    if (request.url.endsWith('/1/status')) response.writeHead(404, { 'Auditstream-Answer': 'final' }).end();
    else if (request.url.endsWith('/2/status')) response.writeHead(200, { ETag: '"e"' }).end('{"audit_id":2,"status":"running","progress":9}');
    else if (seen.length < 2) open(response, 'retry: 1\n', state(1, 'running', 1), state(2, 'running', 2)); // it may be lost
  });
  const stop = new AbortController();
  const seen = [];
  const outcome = await watchAudits(null, { base, heartbeat, signal: stop.signal, onProgress: (p) => {
    seen.push([p.audit_id, p.progress]);
    if (p.progress === 9) stop.abort();
  } });
  assert.equal(outcome, undefined);
  assert.deepEqual(seen, [[1, 1], [2, 2], [2, 9]]);
}));

test('ids beyond what JSON.parse keeps are told apart, polled and ended', patiently(async (t, heartbeat) => {
  const [one, two] = ['9007199254740992', '9007199254740993'];
  const { base, requests } = await serve(t, (request, response, n) => {
    if (request.url.endsWith('/status')) response.end(`{"audit_id":${request.url.split('/').at(-2)},"status":"completed","progress":100}`);
    else if (n === 1) open(response, 'retry: 1\n', state(one, 'completed', 100), state(two, 'running', 5));
  });
  assert.equal(await watchAudits([one, BigInt(two)], { base, heartbeat }), 'done');
  assert.deepEqual(requests.filter(({ url }) => url.endsWith('/status')).map(({ url }) => url), [`/api/v1/audits/${two}/status`]);
}));

test('watchAudit: what polling ends is over at once, although the stream waits for its next attempt', patiently(async (t, heartbeat) => {
  soon(t, 5000); // between polls
  t.mock.method(Math, 'random', () => 1);
  let refused = false;
  const { base } = await serve(t, (request, response, n) => {
    if (request.url.endsWith('/status')) {
      response.end(`{"audit_id":7,"status":"${refused ? 'completed' : 'running'}","progress":1}`);
    } else if (n > 1) {
      refused = true;
      response.writeHead(502).end(); // from now on the stream waits for 12 s and more
    }
  });
  let done = 0;
  await watchAudit(7, { base, heartbeat, onState: (state) => { if (state === 'done') done = Date.now(); } });
  assert.ok(Date.now() - done < 3000, 'the promise comes with the state');
}));

test('watchAudit: polls where no byte of a stream comes, and returns to the stream', patiently(async (t, heartbeat) => {
  const { base, requests } = await serve(t, (request, response, n) => {
    if (request.url.endsWith('/status')) {
      response.writeHead(200, { 'Content-Type': 'application/json', ETag: '"a1"' });
      response.end('{"audit_id":7,"status":"running","progress":40}');
    } else if (n <= 2) {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.flushHeaders(); // and nothing else: what a proxy that buffers makes of a stream
    } else {
      open(response, state(7, 'completed', 100));
    }
  });
  const states = [];
  const seen = [];
  const outcome = await watchAudit(7, {
    base, token: 'T', heartbeat,
    onState: (next) => states.push(next), onProgress: (p, event) => seen.push([p.progress, event.id]),
  });
  assert.equal(outcome, 'done');
  assert.deepEqual(states, ['connecting', 'polling', 'live', 'done']);
  assert.deepEqual(seen, [[40, 'a1'], [100, '7-100']]);
  assert.equal(requests.find(({ url }) => url.endsWith('/status')).authorization, 'Bearer T');
}));

for (const [answer, status, outcome] of [
  ['{"audit_id":7,"status":"failed","progress":40,"error":"no"}', 200, 'done'],
  ['{"error":"Cross-user access denied"}', 403, 'denied'],
]) {
  test(`watchAudit: polling ends as ${outcome}`, async (t) => {
    const { base } = await serve(t, (request, response) => {
      if (!request.url.endsWith('/status')) return; // never an answer
      response.writeHead(status, { 'Content-Type': 'application/json' });
      response.end(answer);
    });
    assert.equal(await watchAudit(7, { base, heartbeat: 50 }), outcome);
  });
}

/** Notes what an AuthEventSource says until it has said n things. */
function listen(source, n) {
  return new Promise((resolve) => {
    const notes = [];
    const note = (...what) => { if (notes.push(what) === n) { source.close(); resolve(notes); } };
    source.onopen = () => note('open', source.readyState);
    source.onmessage = (event) => note('message', event.data, event.lastEventId);
    source.onerror = () => note('error', source.readyState);
  });
}

test('AuthEventSource: sends its headers, comes back with the last id and new headers', async (t) => {
  const { base, requests } = await serve(t, (request, response, n) => {
    open(response, 'retry: 1\n', `id: ${n}\ndata: ${n}\n\n`);
    if (n === 1) response.end();
  });
  let asked = 0;
  const source = new AuthEventSource(`${base}/x`, { headers: () => ({ Authorization: `Bearer T${++asked}` }) });
  assert.equal(source.readyState, AuthEventSource.CONNECTING);
  const notes = await listen(source, 5);
  assert.deepEqual(notes, [['open', 1], ['message', '1', '1'], ['error', 0], ['open', 1], ['message', '2', '2']]);
  assert.deepEqual(requests.map((r) => [r.authorization, r['last-event-id']]), [['Bearer T1', undefined], ['Bearer T2', '1']]);
  assert.equal(source.readyState, AuthEventSource.CLOSED);
});

test('AuthEventSource: comes back with the id of a block without data, as a browser does', async (t) => {
  const { base, requests } = await serve(t, (request, response, n) => {
    if (n === 1) open(response, 'retry: 1\nid: 1\ndata: a\n\nid: end\n\n'), response.end();
    else response.writeHead(204).end();
  });
  await listen(new AuthEventSource(`${base}/x`), 4);
  assert.equal(requests[1]['last-event-id'], 'end');
});

test('AuthEventSource: headers that cannot be had are asked for again', async (t) => {
  t.mock.method(Math, 'random', () => 0);
  const { base } = await serve(t, (request, response) => open(response, 'data: a\n\n'));
  let asked = 0;
  const headers = async () => {
    if (++asked === 1) throw new Error('no session');
    return {};
  };
  assert.deepEqual(await listen(new AuthEventSource(`${base}/x`, { headers }), 3), [['error', 0], ['open', 1], ['message', 'a', '']]);
});

for (const status of [204, 401, 502]) {
  test(`AuthEventSource: ${status} is for good`, async (t) => {
    const { base, requests } = await serve(t, (request, response) => response.writeHead(status).end());
    assert.deepEqual(await listen(new AuthEventSource(`${base}/x`, { headers: { A: 'b' } }), 1), [['error', 2]]);
    assert.equal(requests.length, 1);
  });
}

test('AuthEventSource: named events and listeners', async (t) => {
  const { base } = await serve(t, (request, response) => open(response, 'event: x\ndata: a\n\n'));
  const source = new AuthEventSource(`${base}/x`);
  const [event] = await once(source, 'x');
  source.close();
  assert.equal(event.data, 'a');
  assert.equal(event.origin, base);
});

/** A document whose visibility the test sets. */
function page(t) {
  const document = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  globalThis.document = document;
  t.after(() => { delete globalThis.document; });
  return (state) => {
    document.visibilityState = state;
    document.dispatchEvent(new Event('visibilitychange'));
  };
}

test('a hidden tab gives its stream back, and has it again when it is looked at', async (t) => {
  const show = page(t);
  soon(t, 60_000);
  const { base, requests } = await serve(t, (request, response, n) => {
    open(response, state(7, n === 1 ? 'running' : 'completed', n));
    if (n === 1) response.on('close', () => show('visible'));
  });
  const states = [];
  const outcome = await watchAudit(7, { base, heartbeat: 10_000, onState: (next) => states.push(next), onProgress: () => show('hidden') });
  assert.equal(outcome, 'done');
  assert.deepEqual(states, ['connecting', 'live', 'connecting', 'live', 'done']);
  assert.equal(requests[1]['last-event-id'], '7-1');
});

test('a hidden tab lets another one have its connection', async (t) => {
  const show = page(t);
  const tabs = new BroadcastChannel('auditstream');
  t.after(() => tabs.close());
  const { base, requests } = await serve(t, (request, response, n) => {
    open(response, state(7, n === 1 ? 'running' : 'completed', n));
    if (n === 1) response.on('close', () => show('visible'));
  });
  await watchAudit(7, { base, onProgress: () => { show('hidden'); tabs.postMessage(''); } });
  assert.equal(requests.length, 2);
});

test('a tab that waits for a connection asks hidden ones for theirs', async (t) => {
  page(t);
  const tabs = new BroadcastChannel('auditstream');
  t.after(() => tabs.close());
  const { base } = await serve(t, () => {}); // as good as a browser without a free connection
  const stop = new AbortController();
  tabs.onmessage = () => stop.abort();
  assert.equal(await watchAudit(7, { base, signal: stop.signal }), undefined);
});

test('a tab that was looked at meanwhile waits all the same as long as the server asks for', async (t) => {
  const show = page(t);
  let end;
  const { base, requests } = await serve(t, (request, response) => {
    open(response, 'retry: 60000\n', state(7, 'running', 1));
    end = () => response.end('retry: 60000\n\n'); // as a server that shuts down
  });
  const stop = new AbortController();
  await watchAudit(7, {
    base, signal: stop.signal,
    onProgress: () => { show('hidden'); show('visible'); end(); },
    onState: (next, { retryIn }) => { if (retryIn) setTimeout(() => stop.abort(), 200); },
  });
  assert.equal(requests.length, 1);
});

test('watchAudits: without ids it tells of what has ended while it was away', async (t) => {
  soon(t, 1500);
  const stop = new AbortController();
  const { base, requests } = await serve(t, (request, response, n) => {
    if (request.url === '/api/v1/audits/1/status') {
      if (n === 1) response.writeHead(502).end('Bad gateway');
      else response.end('{"audit_id":1,"status":"completed","progress":100}');
    } else if (n === 1) open(response, 'retry: 1\n', state(1, 'running', 60), state(2, 'running', 5)), response.end();
    else open(response, state(2, 'running', 6));
  });
  const seen = [];
  const timeout = globalThis.setTimeout;
  t.mock.method(globalThis, 'setTimeout', (f, ms, ...args) => timeout(f, ms === 5000 ? 1 : ms, ...args)); // asked again
  await watchAudits(null, {
    base, signal: stop.signal, onProgress: (p) => {
      seen.push([p.audit_id, p.progress]);
      if (p.status === 'completed') timeout(() => stop.abort(), 200);
    },
  });
  assert.deepEqual(seen, [[1, 60], [2, 5], [2, 6], [1, 100]]);
  assert.deepEqual(requests.map(({ url }) => url).filter((url) => url.endsWith('/status')), Array(2).fill('/api/v1/audits/1/status'));
});

test('watchAudits: what has ended is not asked for again, and may be deleted', async (t) => {
  const { base, requests } = await serve(t, (request, response, n) => {
    if (request.url === '/api/v1/sse/audits/2/progress') open(response, state(2, 'completed', 100));
    else if (n === 1) open(response, 'retry: 1\n', state(1, 'completed', 100), state(2, 'running', 5)), response.end();
    else response.writeHead(404).end('{"error":"Audit not found: audit 1"}');
  });
  const seen = [];
  assert.equal(await watchAudits([1, 2], { base, onProgress: (p) => seen.push([p.audit_id, p.progress]) }), 'done');
  assert.deepEqual(seen, [[1, 100], [2, 5], [2, 100]]);
  assert.deepEqual(requests.map(({ url }) => url), ['/api/v1/sse/audits/progress?ids=1,2', '/api/v1/sse/audits/2/progress']);
});

test('watchAudits: a row that cannot be read keeps none of the others from being polled', async (t) => {
  soon(t, 5000);
  let broken = true;
  const { base } = await serve(t, (request, response) => {
    if (request.url === '/api/v1/audits/1/status' && broken) response.writeHead(500).end('{"error":"Internal server error"}');
    else if (request.url.endsWith('/status')) response.end(`{"audit_id":${request.url.split('/')[4]},"status":"completed","progress":100}`);
  });
  const seen = [];
  const outcome = await watchAudits([1, 2], { base, heartbeat: 50, onProgress: (p) => {
    seen.push(p.audit_id);
    broken = false;
  } });
  assert.deepEqual([outcome, seen], ['done', [2, 1]]);
});

test('watchAudit: a status without text is one, too', async (t) => {
  const { base } = await serve(t, (request, response) => open(response, state(1, '', 10), state(1, 'completed', 100)));
  const seen = [];
  await watchAudit(1, { base, onProgress: (p) => seen.push([p.status, p.progress]) });
  assert.deepEqual(seen, [['', 10], ['completed', 100]]);
});

test('AuthEventSource: its connections leave nothing behind on its signal', async (t) => {
  const signals = new Set();
  const { addEventListener } = AbortSignal.prototype;
  t.mock.method(AbortSignal.prototype, 'addEventListener', function add(...args) {
    signals.add(this);
    return addEventListener.apply(this, args);
  });
  const { base, requests } = await serve(t, (request, response) => { open(response, 'retry: 1\n\n', 'data: x\n\n'); response.end(); });
  const source = new AuthEventSource(base);
  await new Promise((resolve) => { source.onmessage = () => { if (requests.length > 20) resolve(); }; });
  const most = Math.max(...[...signals].map((signal) => getEventListeners(signal, 'abort').length));
  source.close();
  assert.ok(most < 5, `${most} listeners`);
});
