// auditstream-client/testing beside a real database, and what it says when something is wrong. DATABASE_URL's table audits has row 42 of
// user-1; AUDITSTREAM_BIN is the program.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import pg from 'pg';
import { watchAudit } from 'auditstream-client';
import { testServer } from 'auditstream-client/testing';

const patience = 60_000;
const db = new pg.Pool({ connectionString: process.env.DATABASE_URL });
let server;
before(async () => { server = await testServer({ install: 'audits', as: 'user-1' }); });
after(async () => { await server.stop(); await db.end(); });

/** The text of the error that a promise is rejected with. */
const failure = (promise) => promise.then(() => assert.fail('it was not rejected'), (error) => error.message);

test('each later commit is seen, also states that came before they were waited for', async () => {
  const viewer = await server.watch(42);
  assert.equal(viewer.states[0].progress, 25);
  await db.query('update audits set progress = 30 where id = 42');
  await viewer.waitFor((audit) => audit.progress === 30, { timeout: patience });
  await db.query('update audits set progress = 25 where id = 42');
  await server.waitFor('audits/42', (audit) => audit.progress === 25, { timeout: patience });
  await viewer.waitFor((audit) => audit.progress === 25, { timeout: patience });
  assert.deepEqual(viewer.states.map((audit) => audit.progress), [25, 30, 25]);
  viewer.stop();
});

test('a wait in vain shows the states that came', async () => {
  const viewer = await server.watch(42);
  assert.equal(await failure(viewer.waitFor((audit) => audit.progress === 99, { timeout: 1 })), `audits/42 has not shown what was waited for after 1 ms. user-1 saw 1 state:
  {"audit_id":42,"status":"running","progress":25,"id":"42"}
The connection is live. Was the change committed, and of this row?`);
  const mistaken = new Error('the predicate’s own');
  await assert.rejects(viewer.waitFor(() => { throw mistaken; }), mistaken);
  viewer.stop();
  assert.match(await failure(viewer.waitFor((audit) => audit.progress === 99)), /^audits\/42 has come to its end \(stopped\) before/);
});

test('what ends without having been what was waited for is not waited for any longer', async () => {
  const { rows: [{ id }] } = await db.query("insert into audits (user_id) values ('user-1') returning id");
  const viewer = await server.watch(id);
  const failed = failure(viewer.waitFor((audit) => audit.progress === 55, { timeout: patience }));
  await db.query("update audits set status = 'completed', progress = 100 where id = $1", [id]);
  assert.match(await failed, new RegExp(`^audits/${id} has come to its end \\(done\\) before. user-1 saw 2 states:\n.*\n.*"status":"completed"`));
});

test('a row that was not committed', async () => {
  const client = await db.connect();
  await client.query('begin');
  const { rows: [{ id }] } = await client.query("insert into audits (user_id) values ('user-1') returning id");
  const failed = await failure(server.watch(id));
  await client.query('commit');
  client.release();
  assert.match(failed, /has come to its end \(denied\) before. user-1 saw no state.\nThe connection is denied: Audit not found. .*commit the transaction/);
  (await server.watch(id)).stop();
});

test("somebody else's row, and one of another feed", async () => {
  assert.match(await failure(server.watch(42, { as: 'user-2' })), /^audits\/42 .* user-2 saw no state.\n.*Cross-user access denied. The row is somebody else's/);
  assert.match(await failure(server.watch('jobs/42')), /^jobs\/42 .*\n.*No such feed. .*--feed NAME/);
});

test('a token of other claims, and no user at all', async () => {
  await db.query("update audits set user_email = 'a@example.com' where id = 42");
  const { rows: [{ id }] } = await db.query("insert into audits (user_email) values ('a@example.com') returning id");
  await server.waitFor(id, () => true, { token: server.token(null, { email: 'a@example.com' }) });
  const nobodys = await testServer({ url: server.url, secret: 'another-key-0123456789-0123456789-01' });
  assert.match(await failure(nobodys.watch(42)), /whose eyes\? Give as/);
  assert.match(await failure(nobodys.watch(42, { as: 'user-1' })), /denied: Invalid authentication token/);
});

test('the server is for other clients, too, and another one runs beside it', async () => {
  const other = await testServer({ env: { SSE_RETRY_MS: '77' } });
  assert.notEqual(other.url, server.url);
  const response = await fetch(`${other.url}/api/v1/sse/audits/42/progress`, { headers: { Authorization: `Bearer ${other.token('user-1')}` } });
  const reader = response.body.getReader();
  let text = '';
  while (!text.includes('retry: 77\n')) text += new TextDecoder().decode((await reader.read()).value);
  await reader.cancel();
  const stop = new AbortController();
  await new Promise((resolve) => { void watchAudit(42, { base: other.url, token: other.token('user-1'), onProgress: resolve, signal: stop.signal }); });
  stop.abort();
  await other.stop();
  await assert.rejects(fetch(other.url));
});

test('what cannot start says why', async () => {
  assert.match(await failure(testServer({ bin: '/nowhere/auditstream' })), /there is no program \/nowhere\/auditstream: .* AUDITSTREAM_BIN/);
  assert.match(await failure(testServer({ install: 'public.none' })), /serve has ended:\n.*public\.none/s);
  assert.match(await failure(testServer({ databaseUrl: 'postgres://u:hush-password@127.0.0.1:x/y' })), /^(?!.*hush-password).*serve has ended:\n.*DATABASE_URL/s);
  assert.match(await failure(testServer({ url: 'http://127.0.0.1:1', timeout: 1 })), /127\.0\.0\.1:1 is not ready after 1 ms; \/readyz: it does not answer: /);
  const url = process.env.DATABASE_URL;
  delete process.env.DATABASE_URL;
  assert.match(await failure(testServer()), /no database: give databaseUrl, or set DATABASE_URL/);
  process.env.DATABASE_URL = url;
});

test('a process that forgets to stop it ends, and takes it along', async () => {
  const forgets = `import { testServer } from 'auditstream-client/testing';
    console.log((await testServer()).url);`;
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', forgets], {
    cwd: fileURLToPath(new URL('.', import.meta.url)), encoding: 'utf8', timeout: patience,
  });
  assert.equal(status, 0, stderr);
  // A process that is killed may still take connections, and cut them, for a moment.
  let code;
  for (const began = Date.now(); code !== 'ECONNREFUSED' && Date.now() - began < patience;) {
    code = await fetch(stdout.trim()).then(() => 'it answers', (error) => error.cause?.code);
  }
  assert.equal(code, 'ECONNREFUSED');
});
