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

/**
 * The state of an audit, as the server sends it. Fields after the first three are absent while they have no value.
 * @typedef {object} AuditProgress
 * @property {number} audit_id
 * @property {string} status pending, running, completed, failed
 * @property {number} progress 0 to 100
 * @property {string} [message]
 * @property {number} [geo_score]
 * @property {number} [total_pages]
 * @property {string} [error] what went wrong; only with status failed
 */

/**
 * An event of a stream.
 * @typedef {object} StreamEvent
 * @property {string} type
 * @property {string} data
 * @property {string} id the last id seen, with this event or before it
 */

/**
 * How the connection is, for the interface:
 * - `connecting`: on the way, for the first time or after a stream that ended in good order
 * - `live`: changes arrive as they are committed
 * - `polling`: changes arrive by asking for them; kept for networks that let no stream through
 * - `offline`: the last attempt failed; another one follows by itself
 * - `done`: the audit has ended, and so has the watching
 * - `denied`: the server refuses for good; see `info.error`
 * @typedef {'connecting' | 'live' | 'polling' | 'offline' | 'done' | 'denied'} WatchState
 */

/**
 * @typedef {object} WatchOptions
 * @property {string | (() => string | Promise<string>)} [token] the JWT, or a function that is asked for one before
 *   every connection. Leave it out where a cookie authenticates.
 * @property {string} [base] where the API is, such as https://api.example.com; by default this page's origin
 * @property {(progress: AuditProgress, event: StreamEvent) => void} [onProgress] called with the current state on every
 *   connection, then with every change
 * @property {(state: WatchState, info: {error?: string, retryIn?: number}) => void} [onState] `error` says why,
 *   `retryIn` in how many milliseconds the next attempt follows
 * @property {AbortSignal} [signal] stops watching
 */

const BACKOFF_MAX = 30_000; // ms
const RETRY_DEFAULT = 3_000; // ms, until the server has said otherwise
const RETRY_MAX = 5 * 60_000; // ms; beyond 2^31 timers would fire at once

/** Answers that trying again does not change. 204 is the server's "you have seen the end". */
const REFUSED = new Set([400, 401, 403, 404, 405, 410]);
/** Error events that end a stream for good. */
const REVOKED = new Set(['Cross-user access denied', 'Audit not found']);
const EXPIRED = 'Token expired';

/**
 * Follows an audit until it has completed or failed, reconnecting as often as it takes.
 *
 * @param {number | bigint | string} id
 * @param {WatchOptions} [options]
 * @returns {Promise<'done' | 'denied' | undefined>} how it ended; undefined when `signal` stopped it. Never rejects.
 */
export async function watchAudit(id, { token, base = '', onProgress, onState, signal } = {}) {
  const url = `${base}/api/v1/sse/audits/${encodeURIComponent(id)}/progress`;
  const seen = { lastEventId: '', retry: RETRY_DEFAULT };
  let failures = 0; // attempts in a row that brought no state
  let state;
  const report = (next, info = {}) => {
    if (next === state && !info.error) return;
    state = next;
    tell(onState, state, info);
  };
  const live = (progress, event) => {
    failures = 0;
    report('live');
    tell(onProgress, progress, event);
  };

  if (!signal?.aborted) report('connecting');
  while (!signal?.aborted) {
    failures++;
    const end = await connect(url, token, seen, live, signal);
    if (signal?.aborted) break;
    if (end.state) {
      report(end.state, end.error ? { error: end.error } : {});
      return end.state;
    }
    const delay = end.renew && failures === 0 ? 0 : backoff(failures, seen.retry, end.orderly);
    report(failures === 0 ? 'connecting' : 'offline', { error: end.error ?? 'Stream ended', retryIn: delay });
    await sleep(delay, signal);
  }
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
 * @returns {Promise<{state?: 'done' | 'denied', error?: string, orderly?: boolean, renew?: boolean}>} `state` when there
 *   is nothing to come back for; `renew` when a fresh token is all that is missing
 */
async function connect(url, token, seen, onLive, signal) {
  const abort = new AbortController();
  const stop = () => abort.abort();
  signal?.addEventListener('abort', stop);
  try {
    const headers = { Accept: 'text/event-stream' };
    const jwt = typeof token === 'function' ? await token() : token;
    if (jwt) headers.Authorization = `Bearer ${jwt}`;
    if (seen.lastEventId) headers['Last-Event-ID'] = utf8(seen.lastEventId);

    const response = await fetch(url, { headers, cache: 'no-store', signal: abort.signal });
    if (response.status === 204) return { state: 'done' };
    if (!response.ok) {
      return { state: REFUSED.has(response.status) ? 'denied' : undefined, error: await errorText(response) };
    }
    if (!/^text\/event-stream\b/i.test(response.headers.get('Content-Type') ?? '')) {
      return { error: 'The answer is not an event stream' }; // a proxy's own page, a captive portal
    }
    return await follow(response.body, token, seen, onLive);
  } catch (error) {
    return { error: error?.message || 'Connection lost' };
  } finally {
    signal?.removeEventListener('abort', stop);
    abort.abort(); // whatever is left of the answer
  }
}

/** Reads events until one of them, or the end of the body, ends the stream. */
async function follow(body, token, seen, onLive) {
  let end;
  let lastError;
  const parser = new EventStreamParser({
    lastEventId: seen.lastEventId,
    onRetry: (ms) => { seen.retry = Math.min(ms, RETRY_MAX); },
    onEvent: (event) => {
      if (end) return;
      const progress = parseJSON(event.data);
      if (progress?.status) {
        seen.lastEventId = event.id;
        onLive(progress, event);
        if (progress.status === 'completed' || progress.status === 'failed') end = { state: 'done' };
      } else if (progress?.error) {
        lastError = progress.error;
        if (REVOKED.has(lastError)) end = { state: 'denied', error: lastError };
        if (lastError === EXPIRED) {
          const renew = typeof token === 'function';
          end = { state: renew ? undefined : 'denied', error: lastError, renew, orderly: true };
        }
      }
    },
  });
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { error: lastError, orderly: true };
    parser.push(value);
    if (end) return end;
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
