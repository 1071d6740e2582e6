// testServer: auditstream beside the database of somebody's tests, and viewers who wait for states.
//
// The rule that keeps it right: once watch() has returned, every later commit reaches the viewer, or the next one that replaces it.
// Node's own modules are imported when they are needed: fake.js, which has the same entry, also runs in browsers.

import { keyOf } from './key.js';
import { start } from './process.js';
import { Viewer } from './viewer.js';

/** Starts the program, or takes the URL of one that runs; resolves once changes arrive by notification. */
export async function testServer({ url, secret, databaseUrl, install, bin, env, as, timeout = 30_000 } = {}) {
  const { createHmac, randomBytes } = await import('node:crypto');
  const key = secret ?? (url ? process.env.JWT_SECRET : randomBytes(32).toString('base64'));
  const started = url ? undefined : await start({ databaseUrl, install, bin, env, secret: key, timeout });
  const base = (url ?? started.url).replace(/\/+$/, '');
  try {
    await ready(base, started, timeout);
  } catch (error) {
    await started?.stop();
    throw error;
  }

  const token = (user, claims = {}) => {
    if (!key) throw new Error('token(): the server at url signs with a key that this test does not know: give secret, or set JWT_SECRET');
    const now = Math.floor(Date.now() / 1000);
    const part = (object) => Buffer.from(JSON.stringify(object)).toString('base64url');
    const all = { ...user != null && { sub: String(user) }, iat: now, exp: now + 3600, ...claims };
    const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(all)}`;
    return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
  };
  const viewers = new Set();
  const watch = async (row, options = {}) => {
    const user = options.as ?? as;
    if (user == null && !options.token) throw new TypeError(`watch(${JSON.stringify(row)}): whose eyes? Give as: what the row's user_id holds`);
    const viewer = new Viewer(keyOf(row), user, { base, token: options.token ?? (() => token(user)) });
    viewers.add(viewer);
    void viewer.over.then(() => viewers.delete(viewer));
    await viewer.waitFor(() => true, options);
    return viewer;
  };
  return {
    url: base,
    token,
    watch,
    async waitFor(row, predicate, options) {
      const viewer = await watch(row, options);
      try {
        return await viewer.waitFor(predicate, options);
      } finally {
        viewer.stop();
      }
    },
    async stop() {
      for (const viewer of viewers) viewer.stop();
      await started?.stop();
    },
  };
}

/** Until the listener is up a change would be seen with the safety net, seconds late. */
async function ready(base, started, timeout) {
  const deadline = Date.now() + timeout;
  for (let said = 'it does not answer'; ;) {
    try {
      const response = await fetch(`${base}/readyz`, { signal: AbortSignal.timeout(timeout) });
      said = await response.text();
      if (response.ok && JSON.parse(said).listener === 'up') return;
    } catch (error) {
      said = `it does not answer: ${error.cause?.message ?? error.message}`;
    }
    if (started?.ended()) throw new Error(`auditstream serve has ended:\n${started.log()}`);
    if (Date.now() > deadline) {
      throw new Error(`auditstream at ${base} is not ready after ${timeout} ms; /readyz: ${said}\n${started?.log() ?? ''}`.trimEnd());
    }
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}
