// auditstream's browser client: follow an audit live, in any page, without a build step.
//
//   import { watchAudit } from './client.js';
//
//   watchAudit(42, {
//     token: () => session.freshToken(), // or a string
//     onProgress: (audit) => { bar.value = audit.progress; },
//     onState: (state) => { badge.textContent = state; },
//   });
//
// It uses fetch, because EventSource cannot send an Authorization header: the option that some examples give it,
// new EventSource(url, { headers }), is dropped without a word in every browser.
//
// The rule that keeps it right: the server sends the whole current state first on every connection. So a lost
// connection loses nothing; all that there is to do is to come back, and to know when not to.

// The types, with what each option and state means, are in client.d.ts.

const BACKOFF_MAX = 30_000; // ms
const RETRY_DEFAULT = 3_000; // ms, until the server has said otherwise
const RETRY_MAX = 5 * 60_000; // ms; beyond 2^31 timers would fire at once
const POLL = 5_000; // ms
const HIDDEN = 60_000; // ms that a hidden tab keeps its stream

/** Answers that trying again does not change. 204 is the server's "you have seen the end". */
const REFUSED = new Set([400, 401, 403, 404, 405, 410]);
/** Error events that end a stream for good. */
const REVOKED = /^(Cross-user access denied|Audit not found)/;
const EXPIRED = 'Token expired';

const ended = ({ status }) => status === 'completed' || status === 'failed';
const stream = (text) => /^text\/event-stream\b/i.test(text ?? '');

/**
 * Follows an audit until it has completed or failed, reconnecting as often as it takes.
 *
 * @param {number | bigint | string} id
 * @param {WatchOptions} [options]
 * @returns {Promise<'done' | 'denied' | undefined>} how it ended; undefined when `signal` stopped it. Never rejects.
 */
export function watchAudit(id, options) {
  return watch(`/${encodeURIComponent(id)}/progress`, [id], options);
}

/**
 * Follows several audits on one connection until all of them have ended.
 *
 * @param {(number | bigint | string)[]} [ids] 100 at most; undefined: all of the user's that run, also those that start
 *   later, which ends only by `signal` or a refusal
 * @param {WatchOptions} [options] `onProgress` tells them apart by `audit_id`
 * @returns {Promise<'done' | 'denied' | undefined>} as of watchAudit
 */
export async function watchAudits(ids, options) {
  if (!ids) return watch('/progress', undefined, options);
  if (ids.length === 0) return 'done';
  return watch(`/progress?ids=${ids.map(encodeURIComponent).join()}`, ids, options);
}

async function watch(path, ids, { token, base = '', heartbeat = 30_000, background, onProgress, onState, signal } = {}) {
  const seen = { lastEventId: '', retry: RETRY_DEFAULT };
  const open = new Set(ids?.map(String)); // audits that have not ended
  const last = new Map(); // of each audit, what was told
  let failures = 0; // attempts in a row that brought no state
  let state;
  let outcome;
  let current; // aborts the attempt under way
  let polling; // aborts the polling
  const report = (next, info = {}) => {
    if (next === state && !info.error) return;
    state = next;
    tell(onState, state, info);
  };
  const end = (next, error) => {
    if (outcome || signal?.aborted) return;
    outcome = next;
    polling?.abort();
    current?.abort();
    report(next, error ? { error } : {});
  };
  const progressed = (progress, event) => {
    const id = String(progress.audit_id);
    if (ids?.length === 1) open.clear();
    if (ended(progress)) open.delete(id);
    else open.add(id);
    last.set(id, event.data);
    tell(onProgress, progress, event);
    if (ids && open.size === 0) end('done');
  };
  const request = async () => {
    const jwt = typeof token === 'function' ? await token() : token;
    return jwt ? { Authorization: `Bearer ${jwt}` } : {};
  };

  /** Asks for the states until the stream has bytes again: for networks that let none through. */
  const poll = async () => {
    if (polling) return;
    const mine = polling = new AbortController();
    const over = mine.signal;
    while (!over.aborted) {
      try {
        for (const id of [...open]) {
          const headers = await request();
          if (over.aborted) return;
          const abort = limited(over, heartbeat);
          const response = await fetch(`${base}/api/v1/audits/${encodeURIComponent(id)}/status`, {
            headers, cache: 'no-store', signal: abort.signal,
          }).finally(abort.clear);
          const text = await response.text();
          if (over.aborted) return;
          const body = parseJSON(text);
          if (!response.ok) {
            const error = body?.error ?? `HTTP status ${response.status}`;
            if (REFUSED.has(response.status)) return end('denied', error);
            throw new Error(error);
          }
          if (!body?.status) throw new Error('The answer is not an audit');
          report('polling');
          if (last.get(id) !== text) {
            progressed(body, { type: 'message', data: text, id: (response.headers.get('ETag') ?? '').replace(/^W\/|"/g, '') });
          }
        }
      } catch (error) {
        if (!over.aborted) report('offline', { error: error?.message || 'Connection lost', retryIn: POLL });
      }
      await sleep(POLL, over);
    }
  };
  const stopPolling = () => {
    polling?.abort();
    polling = undefined;
  };

  // A hidden tab gives its connection back after a while, and has it again at once when somebody looks.
  let paused = false;
  let wake;
  let hiding;
  const look = () => {
    clearTimeout(hiding);
    if (hidden() && !background) {
      hiding = setTimeout(() => { paused = true; stopPolling(); current?.abort(); }, HIDDEN);
    } else {
      paused = false;
      wake?.abort();
    }
  };
  const page = globalThis.document;
  page?.addEventListener('visibilitychange', look);
  globalThis.addEventListener?.('online', look);
  look();
  const stop = () => { stopPolling(); current?.abort(); wake?.abort(); };
  signal?.addEventListener('abort', stop);

  if (!signal?.aborted) report('connecting');
  while (!signal?.aborted && !outcome) {
    wake = new AbortController();
    if (paused) {
      report('connecting');
      await new Promise((resolve) => wake.signal.addEventListener('abort', resolve));
      failures = 0;
      continue;
    }
    failures++;
    current = new AbortController();
    const result = await connect(`${base}/api/v1/sse/audits${path}`, request, seen, {
      signal: current.signal,
      silence: 2 * heartbeat,
      onBytes: stopPolling,
      onEvent: (event) => {
        const progress = parseJSON(event.data);
        if (progress?.status) {
          seen.lastEventId = event.id;
          failures = 0;
          report('live');
          progressed(progress, event);
        } else if (progress?.error) {
          if (REVOKED.test(progress.error)) end('denied', progress.error);
          else if (progress.error === EXPIRED && typeof token !== 'function') end('denied', EXPIRED);
          return progress.error;
        }
      },
    });
    if (signal?.aborted || outcome) break;
    if (result.status === 204) {
      end('done');
      break;
    }
    if (REFUSED.has(result.status)) {
      end('denied', result.error);
      break;
    }
    if (paused) continue;
    if (result.silent) void poll();
    const delay = result.silent || result.error === EXPIRED && failures === 0 ? 0 : backoff(failures, seen.retry, result.orderly);
    if (!polling) report(failures === 0 ? 'connecting' : 'offline', { error: result.error ?? 'Stream ended', retryIn: delay });
    await sleep(delay, wake.signal);
  }
  signal?.removeEventListener('abort', stop);
  page?.removeEventListener('visibilitychange', look);
  globalThis.removeEventListener?.('online', look);
  clearTimeout(hiding);
  stopPolling();
  return signal?.aborted && !outcome ? undefined : outcome;
}

/**
 * How long to wait: no less than the server asked for when it ended the stream itself (it spreads its clients), and
 * otherwise a random time ("full jitter") up to a bound that doubles with every failure.
 *
 * @param {number} failures
 * @param {number} retry what the server asked for, in ms
 * @param {boolean} orderly whether the server ended the stream, rather than an accident
 */
export function backoff(failures, retry, orderly) {
  const least = orderly ? retry : 0;
  const most = Math.min(BACKOFF_MAX, Math.max(retry, 100) * 2 ** failures);
  return least + Math.random() * Math.max(0, most - least);
}

/**
 * One connection, from the request to its end.
 *
 * @returns {Promise<{status?: number, error?: string, orderly?: boolean, silent?: boolean, blocked?: boolean}>} `status`
 *   when the answer is no stream; `orderly` when the server ended it; `silent` when no byte came for too long
 */
async function connect(url, request, seen, { signal, silence, credentials, onOpen, onBytes, onEvent }) {
  const abort = new AbortController();
  const stop = () => abort.abort();
  let silent = false;
  let watchdog;
  const heard = () => {
    clearTimeout(watchdog);
    if (silence) watchdog = setTimeout(() => { silent = true; stop(); }, silence);
  };
  signal.addEventListener('abort', stop);
  try {
    const headers = new Headers(await request());
    headers.set('Accept', 'text/event-stream');
    if (seen.lastEventId) headers.set('Last-Event-ID', utf8(seen.lastEventId));
    if (signal.aborted) return {};

    heard();
    const response = await fetch(url, { headers, credentials, cache: 'no-store', signal: abort.signal });
    const { status } = response;
    if (status !== 200) return { status, error: status === 204 ? undefined : await errorText(response) };
    if (!stream(response.headers.get('Content-Type'))) {
      return { status, error: 'The answer is not an event stream' }; // a proxy's own page, a captive portal
    }
    onOpen?.(response);
    let error;
    const parser = new EventStreamParser({
      lastEventId: seen.lastEventId,
      onRetry: (ms) => { seen.retry = Math.min(ms, RETRY_MAX); },
      onEvent: (event) => { if (!signal.aborted) error = onEvent(event) ?? error; },
    });
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { error, orderly: true };
      heard();
      onBytes?.();
      parser.push(value);
      if (signal.aborted) return {}; // by what an event said: a read that is never answered would wait for the watchdog
      if (error === EXPIRED) return { error, orderly: true };
    }
  } catch (error) {
    if (silent) return { error: 'Nothing comes through', silent };
    return { error: error?.message || 'Connection lost' };
  } finally {
    clearTimeout(watchdog);
    signal.removeEventListener('abort', stop);
    abort.abort(); // whatever is left of the answer
  }
}

/**
 * EventSource with headers, for code that is written for EventSource. As in the standard, any status but 200 ends it for
 * good, and what breaks or ends is opened again after the server's `retry`. Further failures in a row wait longer, up to
 * 30 s.
 */
export class AuthEventSource extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;
  CONNECTING = 0;
  OPEN = 1;
  CLOSED = 2;
  readyState = 0;
  onopen = null;
  onmessage = null;
  onerror = null;
  #abort = new AbortController();

  /**
   * @param {string | URL} url
   * @param {{headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>), withCredentials?: boolean}} [options]
   *   a function is asked for the headers before every connection
   */
  constructor(url, { headers = {}, withCredentials = false } = {}) {
    super();
    this.url = new URL(url, globalThis.document?.baseURI).href;
    this.withCredentials = withCredentials;
    for (const type of ['open', 'message', 'error']) {
      this.addEventListener(type, (event) => this[`on${type}`]?.call?.(this, event));
    }
    void this.#run(typeof headers === 'function' ? headers : () => headers);
  }

  close() {
    this.readyState = this.CLOSED;
    this.#abort.abort();
  }

  async #run(headers) {
    const { signal } = this.#abort;
    const seen = { lastEventId: '', retry: RETRY_DEFAULT };
    let failures = 0;
    let origin;
    await null; // so that the caller can set its handlers
    while (!signal.aborted) {
      failures++;
      const { status, orderly } = await connect(this.url, headers, seen, {
        signal,
        credentials: this.withCredentials ? 'include' : 'same-origin',
        onOpen: (response) => {
          origin = new URL(response.url || this.url).origin;
          this.readyState = this.OPEN;
          this.dispatchEvent(new Event('open'));
        },
        onEvent: ({ type, data, id }) => {
          failures = 0;
          seen.lastEventId = id;
          this.dispatchEvent(new MessageEvent(type, { data, origin, lastEventId: id }));
        },
      });
      if (signal.aborted) return;
      this.readyState = status ? this.CLOSED : this.CONNECTING;
      this.dispatchEvent(new Event('error'));
      if (status) return;
      await sleep(failures > 1 ? backoff(failures, seen.retry, orderly) : seen.retry, signal);
    }
  }
}

/**
 * Parses the event stream format of the HTML standard, section 9.2.6, from chunks that may be cut anywhere, even inside
 * a character or between CR and LF. What is unfinished when the chunks end is dropped, as the standard asks.
 */
export class EventStreamParser {
  #onEvent;
  #onRetry;
  #decoder = new TextDecoder(); // UTF-8; drops one leading BOM, replaces what is not UTF-8
  #text = ''; // of the unfinished line
  #afterCR = false; // a LF that comes first belongs to the line end before it
  #data = [];
  #type = '';
  #id;

  /**
   * @param {object} options
   * @param {(event: StreamEvent) => void} options.onEvent
   * @param {(ms: number) => void} [options.onRetry]
   * @param {string} [options.lastEventId] of an earlier connection
   */
  constructor({ onEvent, onRetry = () => {}, lastEventId = '' }) {
    this.#onEvent = onEvent;
    this.#onRetry = onRetry;
    this.#id = lastEventId;
  }

  /** @param {Uint8Array} chunk */
  push(chunk) {
    let text = this.#decoder.decode(chunk, { stream: true });
    if (text === '') return;
    if (this.#afterCR && text[0] === '\n') text = text.slice(1);
    this.#afterCR = text === '' ? false : text.endsWith('\r');

    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#text + lines[0];
    this.#text = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    switch (field) {
      case 'data': this.#data.push(value); break;
      case 'event': this.#type = value; break;
      case 'id': if (!value.includes('\0')) this.#id = value; break;
      case 'retry': if (/^[0-9]+$/.test(value)) this.#onRetry(Number(value)); break;
    }
  }

  #dispatch() {
    const event = { type: this.#type || 'message', data: this.#data.join('\n'), id: this.#id };
    const empty = this.#data.length === 0;
    this.#data = [];
    this.#type = '';
    if (!empty) this.#onEvent(event);
  }
}

/** Header values are bytes to fetch, one a character; EventSource sends ids as UTF-8. */
function utf8(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

async function errorText(response) {
  return parseJSON(await response.text())?.error ?? `HTTP status ${response.status}`;
}

function parseJSON(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Calls back; what the callback throws is reported like any uncaught error and ends nothing here. */
function tell(callback, ...args) {
  try {
    callback?.(...args);
  } catch (error) {
    queueMicrotask(() => { throw error; });
  }
}

function hidden() {
  return globalThis.document?.visibilityState === 'hidden';
}

/** A controller that follows another's signal and aborts by itself after ms, unless cleared. */
function limited(signal, ms) {
  const abort = new AbortController();
  const stop = () => abort.abort();
  const timer = setTimeout(stop, ms);
  signal.addEventListener('abort', stop);
  return { signal: abort.signal, clear: () => { clearTimeout(timer); signal.removeEventListener('abort', stop); } };
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener('abort', end);
    if (signal?.aborted) end();
  });
}
