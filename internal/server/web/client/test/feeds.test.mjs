// Rows of feeds: keys of all kinds, fields, ends by words of a feed, and that there are more. Against a server that a test scripts by path.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { watchAudit, watchProgress } from '../client.js';

const UUID = '6f1c2b9e-41d5-4f0c-9a57-2f6e1c0b7d38';
const row = (id, status, progress, more = {}) => `id: ${progress}\ndata: ${JSON.stringify({ id, status, progress, ...more })}\n\n`;
const end = (block) => `: end\nevent: message\n${block}`;

async function serve(t, handle) {
  const urls = [];
  const server = createServer((request, response) => {
    urls.push(request.url);
    handle(request, response, urls.length);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { base: `http://127.0.0.1:${server.address().port}`, urls };
}

const stream = (...blocks) => (request, response) => {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  response.write(`retry: 1\n${blocks.join('')}`);
};

async function watched(t, id, handle, options = {}) {
  const { base, urls } = await serve(t, handle);
  const seen = [];
  const events = [];
  const errors = [];
  const outcome = await watchProgress('jobs', id, {
    base,
    onProgress: (progress, event) => { seen.push(progress); events.push(event); },
    onState: (state, { error }) => { if (error) errors.push(error); },
    ...options,
  });
  return { outcome, urls, seen, events, errors };
}

const keys = [
  ['a number', 42, '42', 42],
  ['0', 0, '0', 0],
  ['a BigInt', 9007199254740993n, '9007199254740993', undefined],
  ['a number as text', '9007199254740993', '9007199254740993', undefined],
  ['a UUID', UUID, UUID, UUID],
  ['a UUID in upper case', UUID.toUpperCase(), UUID.toUpperCase(), UUID],
  ['a text', 'import', 'import', 'import'],
  ['upper case', 'Import', 'Import', 'Import'],
  ['a slash', 'a/b', 'a%2Fb', 'a/b'],
  ['a percent sign', '50%', '50%25', '50%'],
  ['a comma', 'a,b', 'a%2Cb', 'a,b'],
  ['? # & + ;', '?#&+;', '%3F%23%26%2B%3B', '?#&+;'],
  ['quotes', '"\'\\', '%22\'%5C', '"\'\\'],
  ['no ASCII', 'ä 進捗 😀', '%C3%A4%20%E9%80%B2%E6%8D%97%20%F0%9F%98%80', 'ä 進捗 😀'],
  ['a text that looks like a number', '042', '042', '042'],
  ['three dots', '...', '...', '...'],
];

for (const [name, id, path, told] of keys) test(`watchProgress: a key, ${name}`, async (t) => {
  const exact = '{"id":9007199254740993,"status":"completed","progress":100}';
  const { outcome, urls, seen } = await watched(t, id, stream(told === undefined ? `data: ${exact}\n\n` : row(told, 'completed', 100)));
  assert.equal(outcome, 'done');
  assert.deepEqual(urls, [`/api/v1/sse/jobs/${path}/progress`]);
  assert.deepEqual(seen.map((progress) => progress.id), [String(told ?? id)]);
});

for (const id of ['.', '..']) test(`watchProgress: the key ${id} is no part of a path`, async (t) => {
  const { outcome, urls } = await watched(t, id, stream(row(id, 'completed', 100)));
  assert.deepEqual([outcome, ...urls], ['done', `/api/v1/sse/jobs/progress?ids=${id}`]);
});

test('watchProgress: several, whatever is in their keys', async (t) => {
  const ids = ['a,b', '1%', 'A', 'a', UUID.toUpperCase()];
  const { outcome, urls, seen } = await watched(t, ids, stream(...[...ids.slice(0, 4), UUID].map((id) => row(id, 'completed', 100))));
  assert.equal(outcome, 'done');
  assert.deepEqual(urls, [`/api/v1/sse/jobs/progress?ids=a%2Cb,1%25,A,a,${UUID.toUpperCase()}`]);
  assert.deepEqual(seen.map(({ id }) => id), ['a,b', '1%', 'A', 'a', UUID]);
});

test('watchProgress: no rows are done at once, and are not all', async () => {
  assert.equal(await watchProgress('jobs', [], { base: 'http://127.0.0.1:1' }), 'done');
});

test('watchProgress: fields come as they are, and none is taken for the id', async (t) => {
  const fields = { kind: 'report', attempt: 3, parts: [1, { a: '\n' }], ok: false, big: '9007199254740993', audit_id: 7, error: 'boom' };
  const { seen } = await watched(t, 'a', stream(row('a', 'failed', 40, fields)));
  assert.deepEqual(seen, [{ id: 'a', status: 'failed', progress: 40, ...fields }]);
});

test('watchProgress: an end by a word of the feed is known without asking again', async (t) => {
  const { outcome, urls, events } = await watched(t, 1, stream(row(1, 'running', 10), end(row(1, 'cancelled', 20))));
  assert.equal(outcome, 'done');
  assert.equal(urls.length, 1);
  assert.deepEqual(events.map(({ end }) => end), [undefined, true]);
});

test('watchProgress: the same word ends nothing in another feed', async (t) => {
  const { outcome, urls } = await watched(t, 1, (request, response, n) => {
    if (n === 1) stream(': end\n\n', row(1, 'cancelled', 20))(request, response), response.end();
    else response.writeHead(204, { 'Auditstream-Answer': 'final' }).end();
  });
  assert.deepEqual([outcome, urls.length], ['done', 2]);
});

test('watchProgress: of several, one that ends by a word of the feed is not asked for again', async (t) => {
  const { outcome, urls } = await watched(t, [1, 2], (request, response, n) => {
    if (n === 1) stream(end(row(1, 'cancelled', 20)), row(2, 'running', 5))(request, response), response.end();
    else stream(row(2, 'completed', 100))(request, response);
  });
  assert.equal(outcome, 'done');
  assert.deepEqual(urls, ['/api/v1/sse/jobs/progress?ids=1,2', '/api/v1/sse/jobs/2/progress']);
});

test('watchProgress: an end by a word of the feed is polled, too', async (t) => {
  const { outcome, seen, events } = await watched(t, 'a/b', (request, response) => {
    if (request.url === '/api/v1/jobs/a%2Fb/status') {
      response.writeHead(200, { ETag: '"e"', 'Auditstream-Answer': 'final' }).end('{"id":"a/b","status":"cancelled","progress":7}');
    } else response.writeHead(502).end('bad gateway');
  });
  assert.equal(outcome, 'done');
  assert.deepEqual(seen, [{ id: 'a/b', status: 'cancelled', progress: 7 }]);
  assert.deepEqual(events[0], { type: 'message', data: '{"id":"a/b","status":"cancelled","progress":7}', id: 'e', end: true });
});

test('watchProgress: all of the user\'s, and that there are more', async (t) => {
  const stop = new AbortController();
  const more = [];
  const { outcome, urls, seen } = await watched(t, null, stream(row(1, 'running', 1), 'event: more\ndata: {"shown":500}\n\n', row(2, 'running', 2)), {
    signal: stop.signal,
    onMore: (shown) => { more.push(shown); setTimeout(() => stop.abort(), 50); },
  });
  assert.equal(outcome, undefined);
  assert.deepEqual([urls, seen.map(({ id }) => id), more], [['/api/v1/sse/jobs/progress'], ['1', '2'], [500]]);
});

test('watchProgress: a row that was deleted, or is hidden by now', async (t) => {
  const { outcome, errors } = await watched(t, 1, stream(row(1, 'running', 1), 'data: {"error":"No such row"}\n\n'));
  assert.deepEqual([outcome, errors.at(-1)], ['denied', 'No such row']);
});

const final = [
  [404, 'No such row'], [404, 'No such row: a"b\\'], [404, 'No such feed'], [403, 'Cross-user access denied: a,"b"'], [400, 'Invalid id: give a UUID'],
  [400, 'Invalid ids: give one list of 1 to 100 ids, each a UUID, separated by commas'],
];
for (const [status, error] of final) test(`watchProgress: ${error} is final, also where a proxy takes the header away`, async (t) => {
  const { outcome, urls, errors } = await watched(t, [1, 2], (request, response) => response.writeHead(status).end(JSON.stringify({ error })));
  assert.deepEqual([outcome, urls.length, errors.at(-1)], ['denied', 1, error]);
});

const passing = ['No such rows', 'No such feed: x', 'No such route', 'Invalid id', 'Invalid idea: x', 'Missing authentication token: x', 'Not found'];
for (const error of passing) test(`watchProgress: "${error}" of somebody else's is tried again`, async (t) => {
  const { outcome, seen } = await watched(t, 1, (request, response, n) => {
    if (n > 1 && request.url.includes('/sse/')) stream(row(1, 'completed', 100))(request, response);
    else response.writeHead(404).end(JSON.stringify({ error }));
  });
  assert.deepEqual([outcome, seen.length], ['done', 1]);
});

test('watchAudit: a key that is a text', async (t) => {
  const { base } = await serve(t, stream(`data: {"audit_id":"${UUID}","status":"completed","progress":100}\n\n`));
  const seen = [];
  assert.equal(await watchAudit(UUID, { base, onProgress: ({ id, audit_id }) => seen.push(id, audit_id) }), 'done');
  assert.deepEqual(seen, [UUID, UUID]);
});

test('watchAudit: a field that is called id is not the audit\'s', async (t) => {
  const { base } = await serve(t, stream('data: {"audit_id":7,"status":"completed","progress":100,"id":"field"}\n\n'));
  const seen = [];
  assert.equal(await watchAudit(7, { base, onProgress: ({ id }) => seen.push(id) }), 'done');
  assert.deepEqual(seen, ['7']);
});
