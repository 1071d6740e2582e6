// What client.test.mjs leaves: several audits, polling, AuthEventSource. Against a server that a test scripts by path.

import assert from 'node:assert/strict';
import { once } from 'node:events';
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

test('watchAudit: polls where no byte of a stream comes, and returns to the stream', async (t) => {
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
    base, token: 'T', heartbeat: 100,
    onState: (next) => states.push(next), onProgress: (p, event) => seen.push([p.progress, event.id]),
  });
  assert.equal(outcome, 'done');
  assert.deepEqual(states, ['connecting', 'polling', 'live', 'done']);
  assert.deepEqual(seen, [[40, 'a1'], [100, '7-100']]);
  assert.equal(requests.find(({ url }) => url.endsWith('/status')).authorization, 'Bearer T');
});

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
