// Tests of client.js: node --test server/web/client/test/client.test.mjs (a Go test runs it too).

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { backoff, EventStreamParser, watchAudit } from '../client.js';

// ---- the parser ----

const bytes = (text) => (typeof text === 'string' ? new TextEncoder().encode(text) : Uint8Array.from(text));

/** Feeds chunks to a parser and returns all that it says: events as [type, data, id], retry as a number. */
function parse(chunks, options = {}) {
  const said = [];
  const parser = new EventStreamParser({
    onEvent: ({ type, data, id }) => said.push([type, data, id]),
    onRetry: (ms) => said.push(ms),
    ...options,
  });
  for (const chunk of chunks) parser.push(bytes(chunk));
  return said;
}

const message = (data, id = '') => ['message', data, id];

const rules = [
  ['an event ends at the blank line', 'data: a\n\n', [message('a')]],
  ['an event that the stream leaves unfinished is dropped', 'data: a\n\ndata: b\n', [message('a')]],
  ['a line that the stream leaves unfinished is dropped', 'data: a\n\ndata: b', [message('a')]],
  ['LF ends lines', 'data: a\ndata: b\n\n', [message('a\nb')]],
  ['CR ends lines', 'data: a\rdata: b\r\r', [message('a\nb')]],
  ['CRLF ends lines, once', 'data: a\r\ndata: b\r\n\r\n', [message('a\nb')]],
  ['line ends can be mixed', 'data: a\rdata: b\ndata: c\r\n\rdata: d\n\r\n', [message('a\nb\nc'), message('d')]],
  ['LF CR is two line ends', 'data: a\n\rdata: b\n\r', [message('a'), message('b')]],
  ['other separators end nothing', 'data: a\u2028b\u0085c\vd\fe\n\n', [message('a\u2028b\u0085c\vd\fe')]],
  ['one byte order mark at the beginning is dropped', '\ufeffdata: a\n\n', [message('a')]],
  ['a second byte order mark makes another field name', '\ufeff\ufeffdata: a\n\ndata: b\n\n', [message('b')]],
  ['a byte order mark elsewhere stays', 'data: \ufeffa\n\n', [message('\ufeffa')]],
  ['comments are ignored', ': heartbeat\n\n:\n:data: no\ndata: a\n: in between\n\n', [message('a')]],
  ['one space after the colon is dropped', 'data:a\ndata: b\ndata:  c\ndata:\td\n\n', [message('a\nb\n c\n\td')]],
  ['a value may contain colons', 'data: {"a":1}\n\n', [message('{"a":1}')]],
  ['a line without a colon is a field without a value', 'data\n\n', [message('')]],
  ['two empty data lines are one line end', 'data\ndata\n\n', [message('\n')]],
  ['a trailing empty data line stays', 'data: a\ndata:\n\n', [message('a\n')]],
  ['without data there is no event', 'event: x\nid: 1\n\n\n\n', []],
  ['unknown fields are ignored', 'date: x\n data: no\nDATA: no\nData: no\ndata : no\ndata: a\n\n', [message('a')]],
  ['event names the type, of one event', 'event: x\ndata: a\n\ndata: b\n\n', [['x', 'a', ''], message('b')]],
  ['the last event field counts', 'event: x\nevent: y\ndata: a\n\n', [['y', 'a', '']]],
  ['an empty type is message', 'event: x\nevent:\ndata: a\n\n', [message('a')]],
  ['a type without data is not kept for the next event', 'event: x\n\ndata: a\n\n', [message('a')]],
  ['an id stays until the next', 'id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n', [message('a', '1'), message('b', '1'), message('c', '2')]],
  ['an id counts without data too', 'id: 1\n\ndata: a\n\n', [message('a', '1')]],
  ['an empty id resets', 'id: 1\ndata: a\n\nid\ndata: b\n\n', [message('a', '1'), message('b')]],
  ['an id with NUL is ignored', 'id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n', [message('a', '1'), message('b', '1')]],
  ['retry takes digits', 'retry: 5000\ndata: a\n\n', [5000, message('a')]],
  ['retry counts without an event', 'retry:0042\n', [42]],
  ['retry takes nothing else', 'retry: 1.5\nretry: -1\nretry: 1s\nretry: \nretry\nretry:  1\nretry: 1 \nretry: ١\n', []],
  ['characters outside ASCII arrive whole', 'data: é€😀\nid: ü\n\n', [message('é€😀', 'ü')]],
  ['bytes that are not UTF-8 are replaced', [...bytes('data: a'), 0xff, 0xe2, 0x82, ...bytes('b\n\n')], [message('a\ufffd\ufffdb')]],
  ['an auditstream stream',
    'retry: 5000\nevent: message\nid: 9f1c0a9e2b7d4c35\ndata: {"audit_id":123,"status":"running","progress":25}\n\n: heartbeat\n\n',
    [5000, message('{"audit_id":123,"status":"running","progress":25}', '9f1c0a9e2b7d4c35')]],
];

for (const [name, stream, want] of rules) {
  test(`parser: ${name}`, () => {
    const all = bytes(stream);
    assert.deepEqual(parse([all]), want, 'in one piece');
    for (let cut = 0; cut <= all.length; cut++) {
      assert.deepEqual(parse([all.slice(0, cut), all.slice(cut)]), want, `cut at byte ${cut}`);
    }
    assert.deepEqual(parse([...all].map((byte) => [byte])), want, 'byte by byte');
    assert.deepEqual(parse([...all].flatMap((byte) => [[byte], []])), want, 'with empty chunks');
  });
}

test('parser: the id of an earlier connection stays until the next', () => {
  assert.deepEqual(parse(['data: a\n\nid: 2\ndata: b\n\n'], { lastEventId: '1' }), [message('a', '1'), message('b', '2')]);
});

test('parser: an id without data is told too', () => {
  const ids = [];
  parse(['id: 1\ndata: a\n\nid: 2\n\n: comment\n\nid: 3\n'], { onId: (id) => ids.push(id) });
  assert.deepEqual(ids, ['1', '2', '2'], 'and that of an unfinished block is not');
});

test('parser: a megabyte in small chunks', () => {
  const line = bytes(`data: ${'x'.repeat(1 << 20)}\n\n`);
  const chunks = [];
  for (let at = 0; at < line.length; at += 1000) chunks.push(line.slice(at, at + 1000));
  assert.equal(parse(chunks)[0][1].length, 1 << 20);
});

// ---- the watch, against a server that follows a script ----

const running = (progress, id = 'a1') => `id: ${id}\ndata: {"audit_id":7,"status":"running","progress":${progress}}\n\n`;
const completed = 'id: f1\ndata: {"audit_id":7,"status":"completed","progress":100,"geo_score":78.5}\n\n';
const failure = (text) => `data: {"error":"${text}"}\n\n`;
const quick = 'retry: 1\n';

/** A stream that the server ends in good order. */
const stream = (...blocks) => (request, response) => {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  response.end(blocks.join(''));
};
const refuse = (status, body, type = 'application/json') => (request, response) => {
  response.writeHead(status, { 'Content-Type': type });
  response.end(body);
};
/** A stream that breaks off: a crash, a proxy, a lost network. */
const broken = (...blocks) => (request, response) => {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  response.write(blocks.join(''), () => response.destroy());
};

/** A refusal of ours, with the header or without it. */
const final = (status, body) => (request, response) => {
  response.writeHead(status, { 'Content-Type': 'application/json', 'Auditstream-Answer': 'final' });
  response.end(body);
};

/** Watches audit 7 at a server that gives one answer after the other, and returns all that was seen. */
async function watch(t, answers, options = {}) {
  const requests = [];
  const server = createServer((request, response) => {
    if (request.url.endsWith('/status')) { // which is asked for beside a stream that a proxy answers
      (options.status ?? refuse(502, ''))(request, response);
      return;
    }
    requests.push({ url: request.url, ...request.headers });
    const answer = answers[requests.length - 1];
    if (answer) answer(request, response);
    else final(404, '{"error":"the script is over"}')(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const seen = { states: [], errors: [], progress: [], ids: [], requests };
  seen.outcome = await watchAudit(7, {
    base: `http://127.0.0.1:${server.address().port}`,
    token: 'T',
    ...options,
    onState: (state, info) => {
      seen.states.push(state);
      if (info.error) seen.errors.push(info.error);
      options.onState?.(state, info);
    },
    onProgress: (progress, event) => {
      seen.progress.push(progress.progress);
      seen.ids.push(event.id);
      options.onProgress?.(progress, event);
    },
  });
  return seen;
}

test('watch: to the end', async (t) => {
  const seen = await watch(t, [stream(quick, running(25), running(50, 'a2'), completed)]);
  assert.equal(seen.outcome, 'done');
  assert.deepEqual(seen.states, ['connecting', 'live', 'done']);
  assert.deepEqual(seen.progress, [25, 50, 100]);
  assert.deepEqual(seen.ids, ['a1', 'a2', 'f1']);
  assert.equal(seen.requests.length, 1);
  assert.equal(seen.requests[0].url, '/api/v1/sse/audits/7/progress');
  assert.equal(seen.requests[0].authorization, 'Bearer T');
  assert.equal(seen.requests[0]['last-event-id'], undefined);
});

test('watch: failed is an end too, and ends before the server closes', async (t) => {
  const seen = await watch(t, [(request, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write('data: {"audit_id":7,"status":"failed","progress":10,"error":"no"}\n\n');
  }]);
  assert.equal(seen.outcome, 'done');
  assert.deepEqual(seen.states, ['connecting', 'live', 'done']);
  assert.deepEqual(seen.errors, [], 'an audit that failed is no failure of the watch');
});

test('watch: comes back with the last id, and stops at 204', async (t) => {
  const seen = await watch(t, [stream(quick, running(25, 'ü€')), final(204)]);
  assert.equal(seen.outcome, 'done');
  assert.equal(seen.requests.length, 2);
  assert.equal(Buffer.from(seen.requests[1]['last-event-id'], 'latin1').toString('utf8'), 'ü€');
});

for (const [status, body, error, answer = final] of [
  [400, '{"error":"Invalid audit_id"}', 'Invalid audit_id'],
  [401, '{"error":"Invalid authentication token"}', 'Invalid authentication token'],
  [403, '{"error":"Cross-user access denied"}', 'Cross-user access denied'],
  [404, 'not JSON', 'HTTP status 404'],
  // A proxy, or a page of another origin, does not see the header.
  [400, '{"error":"Invalid audit_id: give a whole number"}', 'Invalid audit_id: give a whole number', refuse],
  [401, '{"error":"Missing authentication token"}', 'Missing authentication token', refuse],
  [403, '{"error":"Cross-user access denied"}', 'Cross-user access denied', refuse],
  [404, '{"error":"Audit not found: audit 7"}\n', 'Audit not found: audit 7', refuse],
]) {
  test(`watch: ${status} ${body} of ours is for good`, async (t) => {
    const seen = await watch(t, [answer(status, body)]);
    assert.equal(seen.outcome, 'denied');
    assert.deepEqual(seen.states, ['connecting', 'denied']);
    assert.deepEqual(seen.errors, [error]);
    assert.equal(seen.requests.length, 1);
  });
}

test('U25: a token that is not valid yet is tried again when it is', async (t) => {
  const early = (request, response) => response.writeHead(401, { 'Retry-After': '1' }).end('{"error":"Invalid authentication token"}');
  const seen = await watch(t, [early, stream(completed)]);
  assert.equal(seen.outcome, 'done');
  assert.ok(seen.states.length > 2);
});

for (const error of ['Cross-user access denied', 'Audit not found']) {
  test(`watch: "${error}" in the stream is for good`, async (t) => {
    const seen = await watch(t, [stream(quick, running(25), failure(error))]);
    assert.equal(seen.outcome, 'denied');
    assert.deepEqual(seen.states, ['connecting', 'live', 'denied']);
    assert.deepEqual(seen.errors, [error]);
    assert.equal(seen.requests.length, 1);
  });
}

// Only an answer of ours is final (U6); and states are asked for meanwhile.
for (const [status, body, headers = {}] of [
  [404, '404 page not found'], [404, '{"message":"no Route matched with those values"}'], [404, '{"error":"not found"}'], [404, '{"error":"Not found"}'],
  [401, '<h1>Sign in</h1>'], [401, '{"error":"Unauthorized"}'], [403, '<h1>Forbidden</h1>'], [403, '{"error":{"message":"Cross-user access denied"}}'],
  [405, ''], [410, '<h1>Gone</h1>'], [204, undefined], [200, '<h1>Sign in</h1>'], [200, '{"status":"ok"}', { 'Content-Type': 'application/json' }],
  [502, ''], [503, '<h1>Back soon</h1>', { 'Retry-After': '0' }], [502, '{"error":"Audit not found"}', { 'Auditstream-Answer': 'final' }],
  [302, '', { Location: '/login' }],
]) {
  test(`U6: ${status} ${body} of a proxy is retried, and states are asked for`, async (t) => {
    let polled = false;
    const answer = (request, response) => {
      if (polled) stream(completed)(request, response);
      else if (request.url === '/login') refuse(200, '<h1>Sign in</h1>', 'text/html')(request, response);
      else response.writeHead(status, headers).end(body);
    };
    t.mock.method(Math, 'random', () => 0.05);
    const seen = await watch(t, Array(50).fill(answer), {
      status: refuse(200, '{"audit_id":7,"status":"running","progress":9}'), onProgress: () => { polled = true; },
    });
    assert.equal(seen.outcome, 'done');
    assert.equal(seen.states[0], 'connecting');
    assert.deepEqual(seen.states.filter((state, k) => k > 0 && state !== seen.states[k - 1]), ['offline', 'polling', 'live', 'done']);
    assert.deepEqual(seen.progress, [9, 100]);
  });
}

test('U6: what a proxy answers at /status is no state, and no end', async (t) => {
  t.mock.method(Math, 'random', () => 0.05);
  const answers = [[404, '404 page not found'], [200, '{"status":"ok"}'], [200, '{"audit_id":8,"status":"completed","progress":100}'], [401, '{"error":"no"}']];
  let asked = 0;
  const timeout = globalThis.setTimeout;
  t.mock.method(globalThis, 'setTimeout', (f, ms, ...args) => timeout(f, ms === 5000 ? 1 : ms, ...args));
  const proxys = refuse(503, 'soon');
  const seen = await watch(t, [proxys, proxys, stream(completed)], {
    status: (request, response) => refuse(...answers[Math.min(asked++, answers.length - 1)])(request, response),
  });
  assert.deepEqual([seen.outcome, seen.progress], ['done', [100]]);
  assert.ok(asked > 1, `${asked}`);
});

test("U6: another server's Retry-After is heeded, up to 30 s", async (t) => {
  const waits = [];
  const timeout = globalThis.setTimeout;
  t.mock.method(globalThis, 'setTimeout', (f, ms, ...args) => timeout(f, ms >= 15_000 && ms < 32_000 ? 1 : ms, ...args));
  const later = (after) => (request, response) => response.writeHead(503, { 'Retry-After': after }).end();
  const seen = await watch(t, [later('17'), later('86400'), later(new Date(Date.now() + 20_500).toUTCString()), later('soon'), stream(completed)], {
    onState: (state, { error, retryIn }) => { if (error && waits.at(-1) !== retryIn) waits.push(retryIn); },
  });
  assert.equal(seen.outcome, 'done');
  const within = (least, most) => waits.some((ms) => ms >= least && ms <= most);
  assert.ok(within(17_000, 18_000) && within(30_000, 31_000) && within(15_000, 22_000), waits.join());
});

for (const error of ['Stream timeout', 'Internal server error', 'Too many streams', 'Server is shutting down']) {
  test(`watch: "${error}" is told, and passes`, async (t) => {
    const seen = await watch(t, [stream(quick, running(25), failure(error)), stream(completed)]);
    assert.equal(seen.outcome, 'done');
    assert.deepEqual(seen.states, ['connecting', 'live', 'connecting', 'live', 'done']);
    assert.deepEqual(seen.errors, [error]);
  });
}

test('watch: an expired token is renewed at once', async (t) => {
  let issued = 0;
  const seen = await watch(t,
    [stream('retry: 60000\n', running(25), failure('Token expired')), stream(completed)],
    { token: async () => `T${++issued}` });
  assert.equal(seen.outcome, 'done');
  assert.deepEqual(seen.requests.map((request) => request.authorization), ['Bearer T1', 'Bearer T2']);
  assert.deepEqual(seen.errors, ['Token expired']);
});

test('watch: a token that is refused is renewed once, at once', async (t) => {
  let issued = 0;
  const unauthorized = final(401, '{"error":"Invalid authentication token"}');
  const seen = await watch(t,
    [unauthorized, stream('retry: 1\n', running(25)), unauthorized, unauthorized], { token: () => `T${++issued}` });
  assert.equal(seen.outcome, 'denied');
  assert.deepEqual(seen.states, ['connecting', 'connecting', 'live', 'connecting', 'connecting', 'denied']);
  assert.deepEqual(seen.requests.map((request) => request.authorization), ['Bearer T1', 'Bearer T2', 'Bearer T3', 'Bearer T4']);
});

test('watch: a stop while a token is awaited', async (t) => {
  const stop = new AbortController();
  const seen = await watch(t, [], { signal: stop.signal, token: () => new Promise(() => setImmediate(() => stop.abort())) });
  assert.equal(seen.outcome, undefined);
  assert.equal(seen.requests.length, 0);
});

test('watch: an expired token that is only text is for good', async (t) => {
  const seen = await watch(t, [stream(quick, running(25), failure('Token expired'))]);
  assert.equal(seen.outcome, 'denied');
  assert.equal(seen.requests.length, 1);
});

test('watch: a token that cannot be had is asked for again', async (t) => {
  t.mock.method(Math, 'random', () => 0);
  let asked = 0;
  const token = () => {
    if (++asked === 1) throw new Error('no session');
    return 'T';
  };
  const seen = await watch(t, [stream(completed)], { token });
  assert.equal(seen.outcome, 'done');
  assert.deepEqual(seen.errors, ['no session']);
});

test('watch: without a token there is no header, for cookies', async (t) => {
  const seen = await watch(t, [stream(completed)], { token: undefined });
  assert.equal(seen.requests[0].authorization, undefined);
});

test('watch: goes through accidents', async (t) => {
  t.mock.method(Math, 'random', () => 0);
  const seen = await watch(t, [
    refuse(502, '<h1>Bad gateway</h1>', 'text/html'),
    refuse(200, '<h1>Welcome to the hotel</h1>', 'text/html'),
    refuse(503, '{"error":"Signing keys are not available yet"}'),
    refuse(429, ''),
    broken(quick, running(25)),
    broken(': nothing yet\n\n'),
    stream(completed),
  ]);
  assert.equal(seen.outcome, 'done');
  // What is asked for beside the stream fails, too, and says so.
  assert.deepEqual(seen.states.filter((state, k) => state !== seen.states[k - 1]),
    ['connecting', 'offline', 'live', 'connecting', 'offline', 'live', 'done']);
  assert.deepEqual([...new Set(seen.errors)].slice(0, 4),
    ['HTTP status 502', 'The answer is not an event stream', 'Signing keys are not available yet', 'HTTP status 429']);
  assert.equal(seen.requests.length, 7);
  assert.equal(seen.requests[6]['last-event-id'], 'a1');
});

test('watch: a stop while a stream is open', async (t) => {
  const stop = new AbortController();
  const closed = deferred();
  const seen = await watch(t, [(request, response) => {
    response.on('close', closed.resolve);
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(running(25));
  }], { signal: stop.signal, onProgress: () => stop.abort() });
  assert.equal(seen.outcome, undefined);
  assert.deepEqual(seen.states, ['connecting', 'live']);
  await closed.promise; // the server learns of it
});

test('watch: a stop while waiting to come back', async (t) => {
  const stop = new AbortController();
  const seen = await watch(t, [stream('retry: 60000\n', running(25), 'retry: 60000\n\n')], // the end is announced
    { signal: stop.signal, onState: (state, info) => { if (info.retryIn) stop.abort(); } });
  assert.equal(seen.outcome, undefined);
  assert.equal(seen.requests.length, 1);
});

test('watch: a stop before it begins', async (t) => {
  const seen = await watch(t, [], { signal: AbortSignal.abort() });
  assert.equal(seen.outcome, undefined);
  assert.deepEqual(seen.states, []);
  assert.equal(seen.requests.length, 0);
});

test('watch: events that are no JSON are passed over', async (t) => {
  const seen = await watch(t, [stream(quick, 'data: hello\n\n', 'data: null\n\n', 'data: 3\n\n', completed)]);
  assert.equal(seen.outcome, 'done');
  assert.deepEqual(seen.progress, [100]);
});

test('watch: what a callback throws is reported, and ends nothing', async (t) => {
  const caught = [];
  const microtasks = t.mock.method(globalThis, 'queueMicrotask', (task) => {
    try {
      task();
    } catch (error) {
      caught.push(error.message);
    }
  });
  const seen = await watch(t, [stream(running(25), completed)], { onProgress: () => { throw new Error('mine'); } });
  microtasks.mock.restore();
  assert.equal(seen.outcome, 'done');
  assert.deepEqual(caught, ['mine', 'mine']);
});

// ---- how long it waits ----

test('backoff: what the server asks for, then full jitter to 30 s', (t) => {
  const random = t.mock.method(Math, 'random', () => 0);
  const bounds = (...args) => [0, 1].map((value) => {
    random.mock.mockImplementation(() => value);
    return backoff(...args);
  });
  assert.deepEqual(bounds(0, 5000, true), [5000, 5000]);
  assert.deepEqual(bounds(0, 5000, false), [0, 5000]);
  assert.deepEqual(bounds(1, 5000, false), [0, 10_000]);
  assert.deepEqual(bounds(1, 5000, true), [5000, 10_000]);
  assert.deepEqual(bounds(2, 5000, false), [0, 20_000]);
  assert.deepEqual(bounds(3, 5000, false), [0, 30_000]);
  assert.deepEqual(bounds(2000, 5000, false), [0, 30_000]);
  assert.deepEqual(bounds(5, 60_000, true), [60_000, 60_000]);
  assert.deepEqual(bounds(0, 0, false), [0, 100], 'never without a pause');
});

function deferred() {
  const d = {};
  d.promise = new Promise((resolve) => { d.resolve = resolve; });
  return d;
}
