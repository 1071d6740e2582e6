// fakeProgress: the client's functions with states that a test plays, without a server and without fetch.
//
// The rule that keeps it right: what a watch is told, and in which order, is what the client tells with a server (fake.test.mjs has
// both side by side).

import { keyOf } from './key.js';

const FAKE = 'auditstreamFake'; // where client.js looks: global, as a bundler may have several copies of a module

/** Takes the server's place for every watch that begins from now on, until restore(). */
export function fakeProgress() {
  if (globalThis[FAKE]) throw new Error('fakeProgress() is in place already: call restore() of the one before, for example after each test');
  const rows = new Map(); // by feed and id: what was played last
  const watches = new Set();
  let events = 0;

  const put = (key, row) => {
    rows.set(nameOf(row), row);
    for (const watch of [...watches]) watch.take(row);
  };
  const begin = (feed, ids, options = {}) => new Promise((resolve) => {
    const watch = new Watch(feed, ids, options, (outcome) => {
      watches.delete(watch);
      resolve(outcome);
    });
    watches.add(watch);
    watch.begin(rows);
  });
  globalThis[FAKE] = begin;

  return {
    play(key, { status, progress = 0, ...fields } = {}, { end } = {}) {
      const { feed, id } = keyOf(key);
      if (typeof status !== 'string') {
        throw new TypeError(`play(${JSON.stringify(key)}): no status; give a state like { status: 'running', progress: 55 }`);
      }
      const number = /^-?\d{1,15}$/.test(id) ? Number(id) : id;
      const body = { [feed === 'audits' ? 'audit_id' : 'id']: number, status, progress, ...fields };
      const event = { type: 'message', data: JSON.stringify(body), id: (++events).toString(16).padStart(16, '0'), ...end && { end: true } };
      put(key, { feed, id, progress: { ...body, id }, event, ended: end || status === 'completed' || status === 'failed' });
    },
    deny(key, error = 'Audit not found') {
      put(key, { ...keyOf(key), denied: error });
    },
    connection(state, info = {}) {
      for (const watch of watches) watch.report(state, info);
    },
    watched: () => [...watches].flatMap(({ feed, asked }) => asked ? asked.map((id) => `${feed}/${id}`) : [`${feed}/`]),
    restore() {
      if (globalThis[FAKE] === begin) delete globalThis[FAKE];
      for (const watch of [...watches]) watch.end();
    },
  };
}

const nameOf = ({ feed, id }) => `${feed}/${id.toLowerCase()}`; // a UUID's case is nobody's

/** One call of watchProgress or its like. */
class Watch {
  #options;
  #resolve;
  #state;
  #open; // ids that have not ended
  #over = false;

  constructor(feed, ids, options, resolve) {
    this.feed = feed;
    this.asked = ids?.map(String);
    this.#open = new Set(this.asked?.map((id) => id.toLowerCase()));
    this.#options = options;
    this.#resolve = resolve;
    options.signal?.addEventListener('abort', () => this.end());
  }

  /** As with a server, the first state comes after the call has returned. */
  begin(rows) {
    if (this.#options.signal?.aborted) return this.end();
    this.report('connecting');
    queueMicrotask(() => {
      if (!this.asked) {
        this.report('live');
        for (const row of rows.values()) if (!row.ended && !row.denied) this.take(row);
      }
      for (const id of this.asked ?? []) {
        const row = rows.get(nameOf({ feed: this.feed, id }));
        if (row) this.take(row);
      }
    });
  }

  take(row) {
    const id = row.id.toLowerCase();
    if (this.#over || row.feed !== this.feed || this.asked && !this.asked.some((asked) => asked.toLowerCase() === id)) return;
    if (row.denied) {
      if (this.asked) this.end('denied', row.denied);
      return;
    }
    this.report('live');
    if (row.ended) this.#open.delete(id);
    else this.#open.add(id);
    this.#tell(this.#options.onProgress, row.progress, row.event);
    if (this.asked && this.#open.size === 0) this.end('done');
  }

  report(state, info = {}) {
    if (this.#over || state === this.#state && !info.error) return;
    this.#state = state;
    this.#tell(this.#options.onState, state, info);
  }

  end(outcome, error) {
    if (this.#over) return;
    if (outcome) this.report(outcome, error ? { error } : {});
    this.#over = true;
    this.#resolve(outcome);
  }

  /** What a callback throws is reported as uncaught, and ends nothing here. */
  #tell(callback, ...args) {
    try {
      callback?.(...args);
    } catch (error) {
      queueMicrotask(() => { throw error; });
    }
  }
}
