// What the page of a development server has more: its token, the buttons, and a look at the insides.

import { audit, audits, feed, link } from '/stream.js';
import { paintSince } from '/detail.js';
import { $, announce, clock, connection, ended, setText, span } from '/words.js';

const PULSE = 1000; // ms between two looks
const QUICK = 150; // ms, while something is awaited
const SOON = 40; // ms from an event to the look that tells when it was committed

let asked = { at: -Infinity };
let dev = {}; // what /dev.json said last
let display = () => undefined;
let changed = () => {};

/** Reads /dev.json; calls that come close together share one answer. */
export function readDev() {
  if (performance.now() - asked.at > 300) {
    const answer = fetch('/dev.json', { cache: 'no-store' }).then(async (response) => {
      const body = await response.json();
      if (!response.ok) throw new Error(body.error);
      sync(body);
      return body;
    });
    asked = { at: performance.now(), answer };
    answer.catch(() => { asked.at = -Infinity; });
  }
  return asked.answer;
}

export const devToken = async () => (await readDev()).token;

/** Starts. selected returns the audit on display; repaint is called when something about audits is known anew. */
export function startDev(selected, repaint) {
  display = selected;
  changed = repaint;
  for (const button of document.querySelectorAll('[data-action]')) {
    button.addEventListener('click', () => void act(button.dataset.action));
  }
  for (const button of document.querySelectorAll('.copy')) button.addEventListener('click', () => void copy(button));
  document.addEventListener('visibilitychange', look);
  readDev().catch(() => {}).then(look); // the stream says why
}

function sync(next) {
  dev = next;
  $('user').textContent = `${dev.user}’s ${feed}`;
  $('who').hidden = false;
  $('feeds').replaceChildren(...['audits', ...dev.feeds].map((name) => Object.assign(document.createElement('option'), { value: name })));
  if (feed !== 'audits') { // of which alone there is more to tell
    dev.actions = false;
    return;
  }
  for (const { id, site, started, ended: until } of dev.audits) {
    const known = audit(id);
    known.byHand = id === dev.by_hand;
    known.site = site;
    if (started) known.started = Date.parse(started);
    if (until) known.until = Date.parse(until);
    changed(known);
  }
  $('lab').hidden = !dev.actions;
  $('try').hidden = !dev.by_hand;
  for (const element of document.querySelectorAll('.by-hand-id')) setText(element, String(dev.by_hand));
  setText($('sql'), dev.sql);
  setText($('curl'), `curl -N ${location.origin}/api/v1/sse/audits/${dev.by_hand}/progress -H 'Authorization: Bearer ${dev.token}'`);
}

// ---- the insides ----

let timer;
let looking = false;
let again = false;
let awaiting; // { pid, since } of a listener that was killed, or { pause, since }
let pulse = {};

/** Looks soon: something has happened. */
export function lookSoon() {
  if (looking) again = true;
  else plan(SOON);
}

function plan(ms) {
  clearTimeout(timer);
  if (!document.hidden && dev.actions) timer = setTimeout(look, ms);
}

async function look() {
  if (looking || !dev.actions) return;
  const begun = Date.now();
  clearTimeout(timer);
  looking = true;
  again = false;
  try {
    const response = await fetch('/dev/pulse', { cache: 'no-store' });
    pulse = response.ok ? await response.json() : {};
    pulse.at = Date.now();
    if (pulse.commits) commits(pulse.commits, begun);
  } catch {
    pulse = {};
  }
  looking = false;
  recovered();
  paintChain();
  plan(again ? SOON : awaiting ? QUICK : PULSE);
}

/** A state that was here before the look and is not in it has been followed by another one. */
function commits(times, begun) {
  for (const known of audits.values()) {
    let news = false;
    for (const event of known.events) {
      if (event.committed !== undefined || event.missed) continue;
      event.committed = times[event.id];
      event.missed = event.committed === undefined && event.at < begun;
      paintSince(event);
      news = true;
    }
    if (news) changed(known);
  }
}

function recovered() {
  if (!awaiting || pulse.database !== 'up') return;
  if (awaiting.pause) {
    awaiting = undefined;
    happened('PostgreSQL goes on. What was late arrives now.');
  } else if (pulse.listener && pulse.listener !== awaiting.pid) {
    happened(`The listener is back as process ${pulse.listener}, within ${span(Date.now() - awaiting.since)}.`);
    awaiting = undefined;
  }
}

export function paintChain() {
  $('wire-page').dataset.state = link.state;
  setText($('wire-page-text'), connection(link));
  setText($('node-page'), link.state === 'live' ? '1 connection' : connection(link).toLowerCase());
  const { database, listener } = pulse;
  const [state, server, text] = database === 'paused' ? ['offline', 'waits', `paused, ${Math.max(1, Math.ceil((pulse.resumes_in - Date.now() + pulse.at) / 1000))} s left`]
    : database === 'up' ? (listener ? ['live', 'LISTEN', `process ${listener}`] : ['connecting', 'reconnects', 'listener gone'])
      : ['offline', database ? 'waits' : 'no answer', database ? 'does not answer' : 'unknown'];
  $('wire-database').dataset.state = state;
  setText($('wire-database-text'), { live: 'listening', connecting: 'reconnecting', offline: 'no answer' }[state]);
  setText($('node-server'), server);
  setText($('node-database'), text);
  document.querySelector('[data-action=pause]').setAttribute('aria-disabled', String(database === 'paused'));
  const victim = victimOf();
  setText($('fail-which'), victim ? `audit ${victim.id}` : 'none is running');
}

function happened(text) {
  setText($('happening'), `${clock(Date.now()).slice(0, 8)}  ${text}`);
  announce(text);
}

// ---- the buttons ----

const runs = (known) => known?.progress && !known.byHand && !known.gone && !ended(known.progress);
const victimOf = () => runs(display()) ? display() : [...audits.values()].filter(runs).at(-1);

async function act(action) {
  const victim = victimOf();
  if (action === 'fail' && !victim) return happened('No audit is running that could fail: start one.');
  try {
    const response = await fetch(`/dev/${action}${action === 'fail' ? `?id=${victim.id}` : ''}`, { method: 'POST', cache: 'no-store' });
    const body = await response.json();
    if (!response.ok) return happened(`${body.error}.`);
    const since = Date.now();
    switch (action) {
      case 'start':
        await readDev().catch(() => {});
        audit(body.id);
        changed(audit(body.id));
        location.hash = `#/${body.id}`;
        happened(`Audit ${body.id} has started.`);
        break;
      case 'fail':
        happened(`Audit ${body.id} was made to fail.`);
        break;
      case 'kill-listener':
        awaiting = { pid: body.pid, since };
        happened(`Process ${body.pid}, the listener’s connection, is cut.`);
        break;
      case 'pause':
        awaiting = { pause: true, since };
        happened(`PostgreSQL stands still for ${body.seconds} s. Streams stay open, writers wait.`);
        break;
    }
    lookSoon();
  } catch {
    happened('The server does not answer: is auditstream dev still running?');
  }
}

async function copy(button) {
  const source = $(button.dataset.copy);
  let done = 'Copied';
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch { // not allowed here: leave it to the keyboard
    getSelection().selectAllChildren(source);
    source.focus();
    done = 'Selected';
  }
  button.textContent = done;
  announce(done);
  setTimeout(() => { button.textContent = 'Copy'; }, 1600);
}
