// The audits and the one connection that all of them come by: with several tabs open, a browser's six connections to a
// host are not used up.
//
// The rule that keeps it right: a stream of all that runs does not mention what has ended meanwhile or is deleted. So
// whatever a new connection does not mention, and whatever was silent for long, is asked for by itself.

import { watchAudits } from '/client.js';
import { ended } from '/words.js';

const MAX_EVENTS = 120; // kept of each audit
const FIRST_STATES = 1500; // ms after which a new connection has mentioned all that runs
const QUIET = 60_000; // ms

/** Audits by id. */
export const audits = new Map();
export const link = { state: 'connecting', info: {}, retryAt: undefined, liveSince: -Infinity, lastLive: undefined };

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
  await watchAudits(undefined, {
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
    onProgress: (progress, event) => {
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
      const jwt = typeof token === 'function' ? await token() : token;
      const response = await fetch(`/api/v1/audits/${known.id}/status`, {
        headers: jwt ? { Authorization: `Bearer ${jwt}` } : {}, cache: 'no-store', signal,
      });
      const data = await response.text();
      const body = { ...JSON.parse(data), id: known.id };
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
