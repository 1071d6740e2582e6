// The page: the user's audits, live.
//
// The rule that keeps it right: everything that is shown is computed from an audit's last event and the connection's
// state, once a frame, however fast events come. Which audit is on display is in the address, so that Back works.

import { audits, askQuiet, feed, find, follow, link, nameOf, on } from '/stream.js';
import { addRow, paintRow, paintTotals, shelve, trim } from '/rows.js';
import { paintDetail } from '/detail.js';
import { devToken, lookSoon, paintChain, readDev, startDev } from '/dev.js';
import { $, announce, clock, connection, ended, score, setText } from '/words.js';

const { dataset } = document.documentElement;
const dev = dataset.mode === 'dev';
const narrow = matchMedia('(max-width: 899px)');
const KEY = 'auditstream.token'; // in sessionStorage
const PATIENCE = 2500; // ms for the first events
const AGAIN = 3000; // ms until a refused development page tries again

// ---- which audit is on display ----

let selected;
const keyOf = (hash) => {
  try {
    return decodeURIComponent(/^#\/(.+)$/.exec(hash)?.[1] ?? '');
  } catch {
    return ''; // a stray %
  }
};
const asked = () => keyOf(location.hash);

const moves = (audit) => audit?.progress && !audit.byHand && !audit.shelved;

/** What the address says; in a wide window, which has room for it, the first that moves otherwise. */
function choose() {
  const id = asked();
  const before = selected;
  if (id && audits.has(id)) selected = id;
  else if (!moves(audits.get(selected))) {
    const all = [...audits.values()].filter((audit) => !audit.shelved);
    selected = (all.find((audit) => moves(audit) && !ended(audit.progress)) ?? audits.get(selected) ?? all[0] ?? audits.values().next().value)?.id;
  }
  dataset.view = id && audits.has(id) ? 'detail' : 'list';
  if (before !== selected) for (const each of [before, selected]) if (audits.has(each)) stale.add(audits.get(each));
}

addEventListener('hashchange', ({ oldURL }) => {
  // Not dataset.view: an event of the stream may have come between the address and this, and changed it already.
  const from = keyOf(new URL(oldURL).hash);
  const before = from ? 'detail' : 'list';
  choose();
  paint();
  void again();
  if (!narrow.matches || before === dataset.view) return;
  scrollTo({ top: 0 });
  if (dataset.view === 'detail') $('detail').focus({ preventScroll: true });
  // To where one came from, though it is no longer the one that a wide window would show.
  else (audits.get(from) ?? audits.get(selected))?.parts.pick.focus();
});

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape' && audits.has(selected)) {
    if (narrow.matches && dataset.view === 'detail') location.hash = '#/';
    else audits.get(selected).parts.pick.focus();
  }
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && document.activeElement.matches('.pick')) {
    const picks = [...document.querySelectorAll('.pick')];
    const next = picks[picks.indexOf(document.activeElement) + step];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  }
});

$('skip').addEventListener('click', (event) => {
  event.preventDefault();
  (audits.get(selected)?.parts.pick ?? $('audits')).focus();
});

// ---- painting ----

const stale = new Set();
let frame;

/** Shows an audit, or only what is common to all, in the next frame. */
function paint(audit) {
  if (audit) stale.add(audit);
  frame ??= requestAnimationFrame(() => {
    frame = undefined;
    choose();
    for (const each of stale) if (audits.has(each.id)) paintRow(each, each.id === selected);
    stale.clear();
    if (audits.has(selected)) paintDetail(audits.get(selected));
    else $('detail').hidden = true;
    paintTotals(empty());
    paintLink();
    if (dev) paintChain();
  });
}

let patient = true; // it may be that the first events are on their way

function empty() {
  if (audits.size > 0 || patient || link.state === 'denied' || !$('signin').hidden) return '';
  if (link.state === 'offline') return 'Nothing can be shown until the connection is back. It is tried again by itself.';
  if (feed !== 'audits') return `Nothing of yours is in progress in ${feed}. What starts appears here by itself.`;
  return 'No audit of yours is in progress. One that starts appears here by itself; there is nothing to reload.';
}

/** Whether nothing comes because nothing runs: until there is an event, the client calls a stream connecting. */
function idle() {
  return link.state === 'connecting' && !patient && !(link.retryAt > Date.now() - PATIENCE)
    && ![...audits.values()].some((audit) => !ended(audit.progress) && !audit.gone);
}

function paintLink() {
  $('link').dataset.state = idle() ? 'idle' : link.state;
  setText($('link-text'), idle() ? (feed === 'audits' ? 'Waiting for an audit' : `Waiting for ${feed}`) : connection(link));
  const lost = link.state === 'offline';
  $('notice').hidden = !lost;
  if (lost) {
    const shown = link.lastLive ? ` What is shown is as of ${clock(link.lastLive).slice(0, 8)}.` : '';
    setText($('notice'), `No connection (${link.info.error ?? 'lost'}). It is tried again by itself.${shown}`);
  }
}

on.unknown = (audit) => {
  addRow(audit);
  paint(audit);
  if (dev) readDev().catch(() => {}); // knows more about it
};
on.changed = paint;
on.link = () => paint();
on.event = () => { if (dev) lookSoon(); };
on.ended = (audit, seen) => {
  if (seen && audit.progress) {
    const { progress: end } = audit;
    announce(end.status !== 'completed' ? `${nameOf(audit.id)} ${end.status}.`
      : `${nameOf(audit.id)} completed${end.geo_score === undefined ? '' : `, score ${score(end)}`}.`);
  }
  if (dev) setTimeout(() => readDev().catch(() => {}), 500); // when it ended
  shelve(audit, seen, () => {
    trim(asked());
    paint(audit);
  });
};

// ---- whose audits ----

let stop = new AbortController();

async function start(token) {
  stop.abort();
  stop = new AbortController();
  const { signal } = stop;
  patient = true;
  setTimeout(() => { patient = false; paint(); }, PATIENCE);
  askQuiet(token, signal);
  again = () => lookUp(token, signal);
  void again();
  const refused = await follow(token, signal);
  if (!refused || signal.aborted) return;
  stop.abort();
  if (refused === 'No such feed') return tellWhich(`There is no feed ${feed} on this server.`);
  if (dev) setTimeout(() => void start(token), AGAIN);
  else leave(token ? refused : '');
}

/** Shows the row that the address asks for, where it is none of those that run. */
async function lookUp(token, signal) {
  const id = asked();
  $('which-error').hidden = true;
  if (!id || audits.has(id)) return;
  const why = await find(id, token, signal);
  if (why && id === asked() && !audits.has(id) && !signal.aborted) tellWhich(`${nameOf(id)}: ${why}.`);
}

let again = async () => {}; // lookUp, once it is known as whom

function tellWhich(text) {
  $('which-error').textContent = text;
  $('which-error').hidden = false;
}

$('choose').addEventListener('submit', (event) => {
  event.preventDefault();
  const [, name, key] = /^\s*([a-z][a-z0-9_]{0,30})(?:\/(.*?))?\s*$/s.exec($('which').value) ?? [];
  if (!name) return tellWhich('A feed has a name of small letters, digits and _; behind a slash is a row’s key.');
  const hash = key ? `#/${encodeURIComponent(key)}` : '#/';
  if (name === feed) location.hash = hash;
  else location.assign(`${name === 'audits' ? '/' : `/?feed=${name}`}${hash}`);
});

/** Forgets the token and all that it showed, and asks for one. */
function leave(reason) {
  stop.abort();
  sessionStorage.removeItem(KEY);
  for (const audit of audits.values()) audit.row.remove();
  audits.clear();
  Object.assign(link, { state: 'denied', info: {}, retryAt: undefined, lastLive: undefined });
  $('who').hidden = true;
  $('signin').hidden = false;
  $('signin-error').hidden = !reason;
  $('signin-error').textContent = reason && (reason === 'Token expired'
    ? 'The token has expired. Paste a new one.'
    : `The server refuses this token: ${reason}. Check that it is whole, not expired, and signed with the key of this server.`);
  $('token').value = '';
  $('token').focus();
  dataset.signedOut = '';
  paint();
}

function enter(token) {
  $('signin').hidden = true;
  delete dataset.signedOut;
  link.state = 'connecting';
  if (token) {
    sessionStorage.setItem(KEY, token);
    $('who').hidden = $('leave').hidden = false;
    $('user').textContent = whose(token);
  }
  void start(token || undefined);
}

/** Whom a token names, unverified: that is the server's business. */
function whose(token) {
  try {
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0))));
    const name = claims.sub ?? claims.email;
    return typeof name === 'string' ? `${name.slice(0, 60)}’s ${feed}` : '';
  } catch {
    return '';
  }
}

$('leave').addEventListener('click', () => leave(''));
$('signin').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = $('token').value.trim().replace(/^(Authorization:\s*)?Bearer\s+/i, '');
  if (/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) return enter(token);
  $('signin-error').hidden = false;
  $('signin-error').textContent = 'This is not a token: one has three parts of letters and digits, separated by dots.';
});

// ---- start ----

if (feed !== 'audits') {
  $('audits-title').textContent = feed;
  document.title = `${feed} – auditstream`;
}

setInterval(() => { // elapsed times and count-downs
  for (const audit of audits.values()) if (!ended(audit.progress) && !audit.gone) stale.add(audit);
  paint();
}, 1000);

if (dev) {
  startDev(() => audits.get(selected), paint);
  void start(devToken);
} else if (sessionStorage.getItem(KEY)) enter(sessionStorage.getItem(KEY));
else if (dataset.mode === 'cookie') enter('');
else leave('');
