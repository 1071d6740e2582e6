// The audits and the one connection that all of them come by: with several tabs open, a browser's six connections to a
// host are not used up.
//
// The rule that keeps it right: a stream of all that runs does not mention what has ended meanwhile or is deleted. So
// whatever a new connection does not mention, and whatever was silent for long, is asked for by itself.

import { watchProgress } from '/client.js';
import { ended, finals } from '/words.js';

const MAX_EVENTS = 120; // kept of each audit
const FIRST_STATES = 1500; // ms after which a new connection has mentioned all that runs
const QUIET = 60_000; // ms

/** Which feed the page shows: /?feed=NAME. All rows are called audits here, whatever they are. */
export const feed = /^[a-z][a-z0-9_]{0,30}$/.exec(new URLSearchParams(location.search).get('feed') ?? '')?.[0] ?? 'audits';

/** What people call a row. */
export const nameOf = (id) => feed === 'audits' ? `Audit ${id}` : `${feed}/${id}`;

/** Audits by id. */
export const audits = new Map();
export const link = { state: 'connecting', info: {}, retryAt: undefined, liveSince: -Infinity, lastLive: undefined, more: false };

/** What the page does about news; set by the page. */
export const on = { changed() {}, ended() {}, event() {}, link() {}, unknown() {} };

export function audit(id) {
  id = String(id);
  let known = audits.get(id);
  if (!known) {
    known = {
      id, byHand: false, site: '', started: undefined, since: undefined, until: undefined,
      progress: undefined, gone: '', shelved: false, events: [], count: 0, heard: -Infinity,
    };
    audits.set(id, known);
    on.unknown(known);
  }
  return known;
}

/** Follows all of the user's audits until stop() or a refusal, whose text it returns. */
export async function follow(token, signal) {
  let refused;
  await watchProgress(feed, undefined, {
    token,
    signal,
    onState: (state, info) => {
      if (signal.aborted) return;
      const before = link.state;
      Object.assign(link, { state, info, retryAt: info.retryIn === undefined ? undefined : Date.now() + info.retryIn });
      if (state === 'denied') refused = info.error ?? 'The server refuses';
      if (state === 'live' && before !== 'live') {
        link.liveSince = performance.now();
        setTimeout(() => void ask(token, signal, link.liveSince), FIRST_STATES);
      }
      on.link();
    },
    onMore: () => { link.more = true; },
    onProgress: (progress, event) => {
      if (event.end) finals.add(progress);
      if (!signal.aborted) told(progress, event.data, event.id, link.state === 'polling');
    },
  });
  return refused;
}

/** Asks once a minute for what was silent. */
export function askQuiet(token, signal) {
  const timer = setInterval(() => {
    if (link.state === 'live') void ask(token, signal, performance.now() - QUIET);
  }, QUIET / 4);
  signal.addEventListener('abort', () => clearInterval(timer));
}

function told(progress, data, id, asked) {
  const known = audit(progress.id);
  const now = Date.now();
  const before = known.progress;
  const previous = known.events.at(-1);
  known.heard = performance.now();
  known.gone = '';
  link.lastLive = now;
  if (previous?.id !== id) {
    known.count++;
    const event = {
      id, data, number: known.count, at: now,
      gap: previous && now - previous.at,
      // The state at the time of connecting may be as old as it likes.
      first: asked || (!before && performance.now() - link.liveSince < FIRST_STATES),
      changes: Object.entries(progress).filter(([name, value]) => name !== 'audit_id' && name !== 'id' && value !== before?.[name]),
      committed: undefined, missed: false, // when, or that nobody knows
    };
    known.events.push(event);
    if (known.events.length > MAX_EVENTS) known.events.shift();
    on.event(known, event);
  }
  known.since ??= now;
  known.progress = progress;
  if (ended(progress) && !ended(before)) {
    if (before || !event1(known)) known.until ??= now;
    on.ended(known, Boolean(before));
  }
  on.changed(known);
}

/** Whether all that is known of an audit is the state that it was found in: then nobody here saw it end. */
const event1 = (known) => known.count === 1 && known.events[0].first;

/** Asks for the state of each audit that has not been heard of since a time and has not ended. */
async function ask(token, signal, since) {
  for (const known of [...audits.values()]) {
    if (ended(known.progress) || known.gone || known.heard >= since || signal.aborted || link.state !== 'live') continue;
    try {
      const { response, data, body } = await read(known.id, token, signal);
      if (known.heard >= since || signal.aborted) continue; // the stream was quicker
      if (response.ok) told(body, data, response.headers.get('ETag')?.replace(/^W\/|"/g, '') ?? '', true);
      else if ((response.status === 404 || response.status === 403) && response.headers.get('Auditstream-Answer') === 'final') {
        known.gone = body.error;
        known.until = Date.now();
        on.ended(known, true);
        on.changed(known);
      }
    } catch { /* the connection is told about by the stream; it is asked again after a minute */ }
  }
}

/** One row's state, or why there is none. */
async function read(id, token, signal) {
  const jwt = typeof token === 'function' ? await token() : token;
  const response = await fetch(`/api/v1/${feed}/${encodeURIComponent(id)}/status`, {
    headers: jwt ? { Authorization: `Bearer ${jwt}` } : {}, cache: 'no-store', signal,
  });
  const data = await response.text();
  const body = { ...JSON.parse(data), id };
  if (response.ok && response.headers.get('Auditstream-Answer') === 'final') finals.add(body);
  return { response, data, body };
}

/** Shows a row that the stream of all that runs does not name, because it has ended. Returns why not; '': it is shown. */
export async function find(id, token, signal) {
  try {
    const { response, data, body } = await read(id, token, signal);
    if (!response.ok) return body.error;
    if (!audits.has(id)) told(body, data, response.headers.get('ETag')?.replace(/^W\/|"/g, '') ?? '', true);
    return '';
  } catch {
    return 'The server does not answer';
  }
}
