// What is between the server and the viewer: streams that are held back, cut or silent; and ids.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { EventStreamParser, watchAudit, watchAudits } from '../client.js';

const state = (id, status, progress) => `id: ${id}-${progress}\ndata: {"audit_id":${id},"status":"${status}","progress":${progress}}\n\n`;
const head = { 'Content-Type': 'text/event-stream' };

async function serve(t, handle) {
  const requests = [];
  const server = createServer((request, response) => {
    requests.push({ url: request.url, at: Date.now() });
    handle(request, response, requests.filter(({ url }) => url === request.url).length);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { base: `http://127.0.0.1:${server.address().port}`, requests };
}

test('U8: without a first byte for 5 s states are asked for, and what comes later is dropped as old', async (t) => {
  const { base, requests } = await serve(t, (request, response, n) => {
    if (request.url.endsWith('/status')) response.end('{"audit_id":7,"status":"running","progress":40}');
    else if (n === 1) setTimeout(() => response.writeHead(200, head).write(state(7, 'running', 10)), 7000);
    else response.writeHead(200, head).end(state(7, 'completed', 100));
  });
  const seen = [];
  const states = [];
  const began = Date.now();
  let first;
  const outcome = await watchAudit(7, {
    base, onState: (next) => states.push(next), onProgress: ({ progress }) => { first ??= Date.now() - began; seen.push(progress); },
  });
  assert.deepEqual([outcome, seen], ['done', [40, 100]]);
  assert.deepEqual(states, ['connecting', 'polling', 'live', 'done']);
  assert.ok(first >= 4000 && first < 6500, `the first state after ${first} ms`);
  assert.equal(requests.filter(({ url }) => url.endsWith('/progress')).length, 2);
});

for (const [comment, options, least, most] of [
  [': heartbeat every 1 s\n\n', {}, 5500, 9000], // a second is not enough for a network
  [': heartbeat every 1 s\n\n', { heartbeat: 700 }, 1200, 4500], // what the page says wins
  [': heartbeat every 0 s\n\n: heartbeat every s\n\n: heartbeat\n\n', { heartbeat: 700 }, 1200, 4500],
]) {
  test(`U19: ${JSON.stringify(comment)} with ${JSON.stringify(options)} is silent after ${least} ms`, async (t) => {
    const { base } = await serve(t, (request, response, n) => {
      if (request.url.endsWith('/status')) response.end('{"audit_id":7,"status":"completed","progress":100}');
      else if (n === 1) response.writeHead(200, head).write(comment + state(7, 'running', 10));
    });
    let live;
    await watchAudit(7, { base, ...options, onState: (next) => { if (next === 'live') live ??= Date.now(); } });
    const silent = Date.now() - live;
    assert.ok(silent >= least && silent < most, `${silent} ms`);
  });
}

test('U19: 90 s between heartbeats are no silence', async (t) => {
  const timers = [];
  const timeout = globalThis.setTimeout;
  t.mock.method(globalThis, 'setTimeout', (f, ms, ...args) => { timers.push(ms); return timeout(f, ms, ...args); });
  const { base } = await serve(t, (request, response) => {
    response.writeHead(200, head).write(': heartbeat every 90 s\n\n' + state(7, 'running', 10));
    timeout(() => response.end(state(7, 'completed', 100)), 100);
  });
  await watchAudit(7, { base });
  assert.ok(timers.includes(180_000), timers.join());
});

test('comments are told', () => {
  const comments = [];
  const parser = new EventStreamParser({ onEvent() {}, onComment: (text) => comments.push(text) });
  parser.push(new TextEncoder().encode(': heartbeat every 30 s\n\n:\nretry: 1\ndata: x\n: y\n\n'));
  assert.deepEqual(comments, [' heartbeat every 30 s', '', ' y']);
});

for (const [how, cut] of [['cleanly', (response) => response.end()], ['in the middle', (response) => response.destroy()]]) {
  test(`U20: a stream that is cut ${how} is taken up again at once`, async (t) => {
    const { base, requests } = await serve(t, (request, response, n) => {
      response.writeHead(200, head).write('retry: 60000\n' + state(7, n < 4 ? 'running' : 'completed', n));
      if (n < 4) setTimeout(() => cut(response), 1200);
    });
    const waits = [];
    await watchAudit(7, { base, onState: (next, { retryIn }) => { if (retryIn !== undefined) waits.push(retryIn); } });
    assert.equal(requests.length, 4);
    assert.equal(waits.length, 3);
    assert.ok(waits.every((ms) => ms <= 500), waits.join());
  });
}

test('U20: what is cut again and again after a moment is taken up later and later, and as soon as the server asks for', async (t) => {
  t.mock.method(Math, 'random', () => 1);
  const timeout = globalThis.setTimeout;
  t.mock.method(globalThis, 'setTimeout', (f, ms, ...args) => timeout(f, ms >= 500 && ms <= 3000 ? 1 : ms, ...args));
  const { base } = await serve(t, (request, response, n) => {
    response.writeHead(200, head).end('retry: 3000\n' + state(7, n < 7 ? 'running' : 'completed', n));
  });
  const waits = [];
  await watchAudit(7, { base, onState: (next, { retryIn }) => { if (retryIn !== undefined) waits.push(retryIn); } });
  assert.deepEqual(waits, [500, 1000, 2000, 3000, 3000, 3000]);
});

test('U20: an end that the server announces is one, and so is a server that is gone', async (t) => {
  const { base } = await serve(t, (request, response, n) => {
    if (n === 1) response.writeHead(200, head).end('retry: 50\n' + state(7, 'running', 1) + 'retry: 1234\n\n');
    else if (n === 2) response.destroy();
    else response.writeHead(200, head).end(state(7, 'completed', 100));
  });
  t.mock.method(Math, 'random', () => 0.5);
  const waits = [];
  await watchAudit(7, { base, onState: (next, { retryIn }) => { if (retryIn !== undefined) waits.push(retryIn); } });
  assert.deepEqual(waits, [1234, 1234]); // no less than was asked for; then half of twice that
});

test('U21: an exact id is beside the number', async (t) => {
  const ids = ['9007199254740992', '9007199254740993', '9223372036854775807', '1'];
  const { base } = await serve(t, (request, response) => {
    response.writeHead(200, head).end(ids.map((id) => `data: {"audit_id": ${id},"status":"completed","progress":100,"message":"\\"audit_id\\": 5"}\n\n`).join(''));
  });
  for (const asked of [ids, ids.map(BigInt), [...ids.slice(0, 3), 1]]) {
    const seen = [];
    const outcome = await watchAudits(asked, { base, onProgress: (audit) => seen.push([audit.id, audit.audit_id]) });
    assert.equal(outcome, 'done');
    assert.deepEqual(seen, ids.map((id) => [id, Number(id)]));
  }
  for (const id of [ids[1], BigInt(ids[1])]) {
    let seen;
    assert.equal(await watchAudit(id, { base, onProgress: (audit) => { seen = audit.id; } }), 'done');
    assert.equal(seen, ids[1]);
  }
});
