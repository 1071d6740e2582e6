// auditstream's browser client, for any page, without a build step. How it is used is in README.md and client.d.ts.
//
// It uses fetch: browsers drop the headers of new EventSource(url, { headers }) without a word.
//
// The rule that keeps it right: every connection begins with the whole current state (but for what a stream of all that runs
// no longer names, which is asked for). So all there is to do is to come back, and to know when not to.

const BACKOFF_MAX = 30_000; // ms
const RETRY_DEFAULT = 3_000; // ms, until the server has said otherwise
const RETRY_MAX = 5 * 60_000; // ms
const POLL = 5_000; // ms
const FIRST_STATES = 1_500; // ms in which a new stream names all that runs
const HIDDEN = 60_000; // ms that a hidden tab keeps its stream
const CROWDED = 2_000; // ms without an answer before hidden tabs are asked for theirs
const FIRST_BYTE = 4_500; // ms without one before states are asked for: the first is there within 5 s
const HEARTBEAT = 30_000; // ms, until the server has said otherwise
const AT_ONCE = 500; // ms within which a stream that was cut is taken up again: not all in one moment, when a server dies
const BRIEF = 1_000; // ms; streams that are cut sooner, again and again, are taken up later and later
const TIMER_MAX = 2 ** 31 - 1; // ms; beyond it timers fire at once

/** What refuses for good, where a proxy takes the header away that says so. */
const FINAL = /^\s*\{"error":\s*"((Missing|Invalid) authentication token|No such feed|((Malformed Authorization header|Invalid (audit_id|ids?)): |(Cross-user access denied|Audit not found|No such row)(: |(?=")))(\\.|[^"\\])*)"\}\s*$/;
const REVOKED = /^(Cross-user access denied|Audit not found|No such row)/; // for good, too
const EXPIRED = 'Token expired';
const SILENT = 'Nothing comes through';

/** The state in an event or an answer, with its exact id as text: JSON.parse does not keep all numbers. */
function stateOf(text) {
  const body = parseJSON(text);
  const [, name, number] = /^\s*\{"((?:audit_)?id)": *(\d*)/.exec(text) ?? [];
  const id = number || body?.[name];
  return typeof id === 'string' && typeof body.status === 'string' ? { ...body, id } : undefined;
}

/** Whether an answer is one of ours, and for good. All others pass: a proxy's own page, or that a token is not valid yet. */
const isFinal = ({ status, headers }, text) => (status === 204 || status >= 400 && status < 500) && !headers.has('Retry-After')
  && (marked(headers) || FINAL.test(text));
const marked = (headers) => headers.get('Auditstream-Answer') === 'final';
const ended = ({ status }, { end }) => end || status === 'completed' || status === 'failed';
const DOTS = /^\.\.?$/; // are no part of a path
const hidden = () => globalThis.document?.visibilityState === 'hidden';

/** Follows an audit to its end. Never rejects. */
export function watchAudit(id, options) {
  return watch('audits', [id], options);
}

/** Several on one connection; without ids all of the user's that run. */
export async function watchAudits(ids, options) {
  return ids?.length === 0 ? 'done' : watch('audits', ids, options);
}

/** The same of any feed. */
export async function watchProgress(feed, id, options) {
  const ids = Array.isArray(id) ? id : id == null ? id : [id];
  return ids?.length === 0 ? 'done' : watch(feed, ids, options);
}

/** What has ended may not exist any more, and would have all refused. */
function pathOf(ids, open) {
  const list = [...open].map(encodeURIComponent);
  if (!ids) return '/progress';
  return list.length === 1 && !DOTS.test(list) ? `/${list[0]}/progress` : `/progress?ids=${list}`;
}

const watch = (...args) => (globalThis.auditstreamFake ?? follow)(...args); // testing/fake.js

async function follow(feed, ids, { token, base = '', heartbeat, background, onProgress, onMore, onState, signal } = {}) {
  const seen = {
    lastEventId: '', retry: RETRY_DEFAULT,
    silence: Math.min(2 * (heartbeat ?? HEARTBEAT), TIMER_MAX), heeds: heartbeat == null, // what the server says
  };
  const given = ids?.map(String);
  const asked = ids && new Map([...given.map((id) => [id.toLowerCase(), id]), ...given.map((id) => [id, id])]); // a UUID's case changes
  const open = new Set(given); // audits that have not ended
  const last = new Map(); // of each audit, what was told
  let failures = 0; // attempts in a row that brought no state
  let cuts = 0; // streams in a row that brought one and were cut soon
  let renewed = false; // whether a token was refused since, and another one asked for
  let state;
  let outcome;
  let current; // aborts the attempt under way
  let polling; // aborts the polling
  let wake; // ends the wait between attempts
  let unnamed; // audits that a stream of all that runs has not named so far
  const over = () => outcome || signal?.aborted;
  const report = (next, info = {}) => {
    if (over() && next !== outcome || next === state && !info.error) return;
    state = next;
    tell(onState, state, info);
  };
  const stopPolling = () => {
    polling?.abort();
    polling = undefined;
  };
  const stop = () => { stopPolling(); current?.abort(); wake?.abort(); };
  const end = (next, error) => {
    if (over()) return;
    outcome = next;
    stop();
    report(next, error ? { error } : {});
  };
  const progressed = (progress, event) => {
    const id = asked ? asked.get(progress.id) : progress.id;
    if (id == null) return;
    renewed = false;
    unnamed?.delete(id);
    if (ended(progress, event)) {
      open.delete(id);
      last.delete(id);
    } else {
      open.add(id);
      last.set(id, event.data);
    }
    tell(onProgress, progress, event);
    if (ids && open.size === 0) end('done');
  };
  const request = async () => {
    const jwt = typeof token === 'function' ? await token() : token;
    return jwt ? { Authorization: `Bearer ${jwt}` } : {};
  };
  /** Ends the watch when an answer is for good. A function's token may have expired on its way: the next decides. */
  const refused = ({ final, status, error }) => {
    if (!final) return;
    if (status === 204) end('done');
    else if (status === 401 && typeof token === 'function' && !renewed) renewed = true;
    else end('denied', error);
  };

  /** Asks for the states of audits that have not ended, and returns why one could not be had. */
  const ask = async (which, signal) => {
    let failed;
    for (const id of [...which]) {
      if (DOTS.test(id)) continue;
      const limit = limited(signal);
      try {
        const headers = await request();
        if (signal.aborted) return;
        limit.again(heartbeat ?? HEARTBEAT);
        const response = await fetch(`${base}/api/v1/${feed}/${encodeURIComponent(id)}/status`, {
          headers, cache: 'no-store', signal: limit.signal,
        });
        const { status } = response;
        const text = await response.text();
        if (signal.aborted) return;
        if (!which.has(id)) continue;
        const final = isFinal(response, text);
        if (final || status === 200 || status === 500) unnamed?.delete(id);
        const body = status === 200 ? stateOf(text) : undefined;
        if (body?.id.toLowerCase() !== id.toLowerCase()) {
          if (!ids && final && (status === 403 || status === 404)) { // no longer among the user's
            open.delete(id);
            continue;
          }
          failed = new Error(status === 200 ? 'The answer is not an audit' : errorOf(status, text));
          failed.after = retryAfter(response);
          refused({ final, status, error: failed.message });
          if (status === 500) continue; // of this row alone
          break;
        }
        if (polling) report('polling');
        if (last.get(id) !== text) {
          progressed(body, { type: 'message', data: text, id: response.headers.get('ETag')?.replace(/^W\/|"/g, '') ?? '', ...marked(response.headers) && { end: true } });
        }
      } catch (error) {
        failed = error ?? {};
        break;
      } finally {
        limit.clear();
      }
    }
    return failed;
  };

  /** Asks until the stream has bytes again: for networks that let none through. */
  const poll = async () => {
    if (polling) return;
    const mine = (polling = new AbortController()).signal;
    for (let fails = 0; !mine.aborted;) {
      const failed = open.size === 0 ? new Error(SILENT) : await ask(open, mine);
      const retryIn = failed ? Math.max(POLL, failed.after ?? 0, backoff(fails++, POLL)) : POLL;
      if (!failed) {
        if (fails > 0) wake?.abort(); // whatever was in the way is gone
        fails = 0;
      } else if (!mine.aborted) report('offline', { error: failed.message || 'Connection lost', retryIn });
      await sleep(retryIn, mine);
    }
  };

  /** Asks for what a new stream of all that runs does not name: it has ended. */
  const askUnnamed = async (signal) => {
    const mine = unnamed;
    for (let ms = FIRST_STATES; mine.size > 0; ms = POLL) {
      await sleep(ms, signal);
      if (mine !== unnamed || signal.aborted) return;
      await ask(mine, signal);
    }
  };

  // A hidden tab gives its connection back after a while, or when another tab waits for one (there are six without
  // HTTP/2), and has it again when somebody looks.
  let paused = false;
  let hiding;
  const pause = () => {
    if (!hidden() || background) return;
    paused = true;
    stopPolling();
    current?.abort();
  };
  const look = () => {
    clearTimeout(hiding);
    if (hidden()) {
      hiding = setTimeout(pause, HIDDEN);
    } else {
      paused = false;
      wake?.abort();
      if (Date.now() - seen.heard > seen.silence) current?.abort(); // the machine has slept, and timers with it
    }
  };
  const page = globalThis.document;
  const tabs = page && globalThis.BroadcastChannel && new BroadcastChannel('auditstream');
  if (tabs) tabs.onmessage = pause;
  page?.addEventListener('visibilitychange', look);
  globalThis.addEventListener?.('online', look);
  look();
  signal?.addEventListener('abort', stop);

  report('connecting');
  while (!over()) {
    wake = new AbortController();
    if (paused) {
      report('connecting');
      await sleep(TIMER_MAX, wake.signal);
      continue;
    }
    failures++;
    current = new AbortController();
    const crowded = setTimeout(() => { if (!hidden()) tabs?.postMessage(''); }, CROWDED);
    let fresh = !ids && (unnamed = new Set(open));
    const result = await connect(`${base}/api/v1/sse/${feed}${pathOf(ids, open)}`, request, seen, {
      signal: current.signal,
      onSlow: poll,
      onOpen: () => clearTimeout(crowded),
      onBytes: (error) => {
        stopPolling();
        if (ids || error) return;
        failures = 0; // of all audits there may be none
        report('live');
        if (fresh) void askUnnamed(current.signal);
        fresh = false;
      },
      onEvent: (event) => {
        if (event.type === 'more') return tell(onMore, parseJSON(event.data)?.shown);
        const progress = stateOf(event.data);
        if (progress) {
          failures = 0;
          report('live');
          return progressed(progress, event);
        }
        const error = parseJSON(event.data)?.error;
        if (REVOKED.test(error)) end('denied', error);
        else if (error === EXPIRED && typeof token !== 'function') end('denied', EXPIRED);
        return error;
      },
    });
    clearTimeout(crowded);
    if (current.signal.aborted) { // paused, stopped or stale
      failures = 0;
      report('connecting');
      continue;
    }
    const before = renewed;
    refused(result);
    if (over()) break;
    const foreign = result.status && !result.final;
    if (result.silent || foreign) void poll();
    const cut = result.cut && failures === 0;
    cuts = cut && result.lasted < BRIEF ? cuts + 1 : 0;
    const now = result.silent || renewed !== before || result.error === EXPIRED && failures === 0;
    let delay = now ? 0 : backoff(failures, seen.retry, result.orderly);
    if (cut) delay = Math.random() * Math.min(AT_ONCE * 2 ** Math.max(0, cuts - 1), Math.max(seen.retry, 100));
    if (result.after) delay = Math.max(delay, result.after + Math.random() * 1000);
    wake = new AbortController();
    if (!polling || foreign && state !== 'polling') report(now || failures === 0 ? 'connecting' : 'offline', { error: result.error ?? 'Stream ended', retryIn: delay });
    await sleep(delay, wake.signal);
  }
  signal?.removeEventListener('abort', stop);
  page?.removeEventListener('visibilitychange', look);
  globalThis.removeEventListener?.('online', look);
  tabs?.close();
  clearTimeout(hiding);
  stopPolling();
  return outcome;
}

/** As long as the server asks for when it ends a stream, and "full jitter": a random time up to a doubling bound. */
export function backoff(failures, retry, orderly) {
  const least = orderly ? retry : 0;
  const most = Math.min(BACKOFF_MAX, Math.max(retry, 100) * 2 ** failures);
  return least + Math.random() * Math.max(0, most - least);
}

/**
 * One connection, to its end. `status` when it is no stream, and then `final` and `after`; `silent` when no byte came in time;
 * `orderly` when the body came to its end; `cut` when the server had not announced that, after `lasted` ms.
 */
async function connect(url, request, seen, { signal, credentials, onSlow, onOpen, onBytes, onEvent }) {
  const limit = limited(signal);
  let slow; // fires without a first byte
  let late = false;
  let opened;
  let error;
  let retries = 0; // the first one opens a stream, another one announces its end
  const ending = () => ({ cut: opened && !error && retries < 2, lasted: Date.now() - opened });
  try {
    const given = await Promise.race([request(), aborted(limit.signal)]);
    if (signal.aborted) return {};
    const headers = new Headers(given);
    headers.set('Accept', 'text/event-stream');
    if (seen.lastEventId) headers.set('Last-Event-ID', utf8(seen.lastEventId));
    const heard = () => {
      seen.heard = Date.now();
      limit.again(seen.silence);
    };
    heard();
    if (onSlow) slow = setTimeout(() => { late = true; onSlow(); }, FIRST_BYTE);
    const response = await fetch(url, { headers, credentials, cache: 'no-store', signal: limit.signal });
    const { status } = response;
    if (status !== 200) {
      const text = await response.text();
      return { status, error: errorOf(status, text), final: isFinal(response, text), after: retryAfter(response) };
    }
    if (!/^text\/event-stream\b/i.test(response.headers.get('Content-Type') ?? '')) {
      return { status, error: 'The answer is not an event stream' }; // a proxy's own page, a captive portal
    }
    onOpen?.(response);
    opened = Date.now();
    const parser = new EventStreamParser({
      lastEventId: seen.lastEventId,
      onId: (id) => { seen.lastEventId = id; },
      onRetry: (ms) => { seen.retry = Math.min(ms, RETRY_MAX); retries++; },
      onComment: (text) => {
        const s = /^ heartbeat every ([\d.]+) s$/.exec(text)?.[1];
        if (seen.heeds && s > 0) seen.silence = Math.min(1000 * Math.max(2 * s, +s + 5), TIMER_MAX);
      },
      onEvent: (event) => { if (!signal.aborted) error = onEvent(event) ?? error; },
    });
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { error, orderly: true, ...ending() };
      if (late) return { error: SILENT, silent: true }; // what was held back is older than what was asked for
      clearTimeout(slow);
      parser.push(value);
      heard();
      if (signal.aborted) return {}; // by what an event said
      onBytes?.(error);
      if (error === EXPIRED) return { error, orderly: true };
    }
  } catch (thrown) {
    if (limit.late) return { error: SILENT, silent: true };
    return { error: error || thrown?.message || 'Connection lost', orderly: Boolean(error) || retries > 1, ...ending() };
  } finally {
    clearTimeout(slow);
    limit.clear();
  }
}

/**
 * EventSource with headers. As in the standard, any status but 200 is for good, and what breaks or ends is opened again after
 * `retry`; after further failures later, up to 30 s.
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

  constructor(url, { headers = {}, withCredentials = false } = {}) {
    super();
    this.url = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href).href;
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

/** Parses event streams (HTML standard, 9.2.6) from chunks cut anywhere. What is unfinished in the end is dropped. */
export class EventStreamParser {
  #on;
  #decoder = new TextDecoder(); // UTF-8, without one leading BOM
  #text = ''; // of the unfinished line
  #afterCR = false; // a LF that comes first is of the line before
  #data = [];
  #type = '';
  #end;
  #id;

  constructor({ lastEventId = '', ...on }) {
    this.#on = on;
    this.#id = lastEventId;
  }

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
    if (line === ': end') this.#end = { end: true };
    if (colon === 0) return this.#on.onComment?.(line.slice(1));
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    switch (field) {
      case 'data': this.#data.push(value); break;
      case 'event': this.#type = value; break;
      case 'id': if (!value.includes('\0')) this.#id = value; break;
      case 'retry': if (/^[0-9]+$/.test(value)) this.#on.onRetry?.(Number(value)); break;
    }
  }

  #dispatch() {
    const event = { type: this.#type || 'message', data: this.#data.join('\n'), id: this.#id, ...this.#end };
    const empty = this.#data.length === 0;
    this.#data = [];
    this.#type = '';
    this.#end = undefined;
    this.#on.onId?.(event.id); // one without data is kept too
    if (!empty) this.#on.onEvent(event);
  }
}

/** Header values are bytes to fetch; EventSource sends ids as UTF-8. */
function utf8(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

function parseJSON(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const errorOf = (status, text) => {
  const error = parseJSON(text)?.error;
  return typeof error === 'string' ? error : `HTTP status ${status}`;
};

/** How long a server asks to wait before the next request, in ms; what a proxy says counts within bounds. */
function retryAfter({ headers }) {
  const text = headers.get('Retry-After');
  const ms = /^\d+$/.test(text) ? text * 1000 : Date.parse(text) - Date.now();
  return ms > 0 ? Math.min(ms, BACKOFF_MAX) : 0;
}

/** What a callback throws is reported as uncaught, and ends nothing here. */
function tell(callback, ...args) {
  try {
    callback?.(...args);
  } catch (error) {
    queueMicrotask(() => { throw error; });
  }
}

/** A signal that follows another, and aborts ms after the last again(ms); 0: never. */
function limited(signal) {
  const abort = new AbortController();
  const follow = () => abort.abort();
  let timer;
  const limit = {
    signal: abort.signal,
    late: false,
    again: (ms) => {
      clearTimeout(timer);
      if (ms) timer = setTimeout(() => { limit.late = true; abort.abort(); }, ms);
    },
    clear: () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', follow);
      abort.abort();
    },
  };
  signal.addEventListener('abort', follow);
  return limit;
}

const aborted = (signal) => new Promise((resolve) => { signal.addEventListener('abort', resolve); });

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end);
    if (signal.aborted) end();
  });
}
