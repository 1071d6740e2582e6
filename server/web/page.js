// The page: the developer's audits, live.
//
// The rule that keeps it right: what comes from the server is text and goes in as textContent. Everything that is shown
// is computed from an audit's last event and its connection state, once a frame, however fast events come.

import { watchAudit } from '/client.js';

const MAX_STREAMS = 4; // besides the one changed by hand: browsers allow six HTTP/1.1 connections to a host
const MAX_EVENTS = 200; // kept of each audit
const MAX_ENDED = 5; // shown after their successors have taken their place
const MAX_TEXT = 4000; // characters of an event or an error that are shown

const $ = (id) => document.getElementById(id);
const narrow = matchMedia('(max-width: 899px)');
const still = matchMedia('(prefers-reduced-motion: reduce)');

/** Audits by id, in the order shown. */
const audits = new Map();
let dev; // what /dev.json said last
let unreachable = ''; // why it could not be read
let selected;

// ---- the development server's data ----

let asked = { at: -Infinity };

/** Reads /dev.json; calls that come close together share one answer, so that streams reconnecting together do too. */
function readDev() {
  if (performance.now() - asked.at > 500) {
    const answer = fetch('/dev.json', { cache: 'no-store' }).then(async (response) => {
      const body = await response.json();
      if (!response.ok) throw new Error(body.error);
      sync(body);
      return body;
    });
    asked = { at: performance.now(), answer };
    answer.then(() => trouble(''), (error) => trouble(error.message));
  }
  return asked.answer;
}

function trouble(text) {
  unreachable = text;
  $('notice').hidden = !text || audits.size > 0;
  $('notice').textContent = `The development server's data cannot be read: ${text}. Trying again.`;
  paint();
}

let rereading = false;

/** Reads /dev.json until every audit that has ended has been replaced by its successor, then leaves it alone. */
async function reread() {
  if (rereading) return;
  rereading = true;
  for (let wait = 600; outdated(); wait = Math.min(wait * 1.5, 5000)) {
    await new Promise((resolve) => { setTimeout(resolve, wait); });
    await readDev().catch(() => {});
  }
  rereading = false;
}

function outdated() {
  if (!dev) return true;
  return dev.audits.some((id) => id !== dev.by_hand && audits.get(id)?.over);
}

/** Brings the list in line with what the development server runs now. */
function sync(next) {
  dev = next;
  const current = new Set(dev.by_hand ? [dev.by_hand, ...dev.audits] : dev.audits);
  for (const id of current) if (!audits.has(id)) audits.set(id, newAudit(id, id === dev.by_hand));
  for (const audit of [...audits.values()]) {
    if (current.has(audit.id) || audit.shelved) continue;
    if (audit.ended) shelve(audit);
    else remove(audit);
  }
  startStreams();

  $('who').hidden = !dev.user;
  $('user').textContent = dev.user;
  $('try').hidden = !dev.by_hand;
  for (const element of document.querySelectorAll('.by-hand-id')) element.textContent = dev.by_hand;
  $('sql').textContent = dev.sql;
  $('curl').textContent =
    `curl -N ${location.origin}/api/v1/sse/audits/${dev.by_hand}/progress -H 'Authorization: Bearer ${dev.token}'`;
  if (!audits.has(selected) && audits.size > 0) select(audits.keys().next().value);
  paint();
}

// ---- audits and their streams ----

function newAudit(id, byHand) {
  const row = $('row').content.firstElementChild.cloneNode(true);
  const part = (name) => row.querySelector(`.${name}`);
  const audit = {
    id, byHand, row,
    parts: Object.fromEntries(
      ['pick', 'chip', 'percent', 'bar', 'fill', 'stage', 'dot', 'link-text', 'score', 'pages', 'elapsed']
        .map((name) => [name, part(name)])),
    state: 'waiting', info: {},
    progress: undefined, events: [], count: 0,
    since: undefined, until: undefined, retryAt: undefined,
    stop: undefined, ended: false, over: false, shelved: false,
  };
  part('tag').hidden = !byHand;
  const { pick, bar } = audit.parts;
  pick.textContent = `Audit ${id}`;
  pick.id = `audit-${id}`;
  pick.addEventListener('click', () => select(id, true));
  bar.setAttribute('aria-labelledby', pick.id);
  $('running').append(row);
  return audit;
}

/** Starts as many streams as there is room for. */
function startStreams() {
  let open = [...audits.values()].filter((audit) => !audit.byHand && audit.stop && !audit.over).length;
  for (const audit of audits.values()) {
    if (audit.stop) continue;
    if (audit.byHand) watch(audit);
    else if (open < MAX_STREAMS) {
      open++;
      watch(audit);
    }
  }
}

async function watch(audit) {
  audit.stop = new AbortController();
  await watchAudit(audit.id, {
    token: async () => (await readDev()).token,
    signal: audit.stop.signal,
    onState: (state, info) => {
      audit.state = state;
      audit.info = info;
      audit.retryAt = info.retryIn === undefined ? undefined : Date.now() + info.retryIn;
      if (info.error) record(audit, { note: info.error });
      paint(audit);
    },
    onProgress: (progress, event) => {
      audit.since ??= Date.now();
      record(audit, { data: event.data, id: event.id, changed: changes(audit.progress, progress) });
      audit.progress = progress;
      audit.ended = progress.status === 'completed' || progress.status === 'failed';
      beat(audit);
      paint(audit);
    },
  });
  if (audit.stop.signal.aborted) return;
  audit.over = true;
  audit.until = Date.now();
  if (audit.ended) announce(summary(audit));
  startStreams();
  reread();
  paint(audit);
}

/** Moves an ended audit below the running ones. */
function shelve(audit) {
  audit.shelved = true;
  const focused = audit.row.contains(document.activeElement); // moving an element takes the focus from it
  $('ended').prepend(audit.row);
  $('ended-part').hidden = false;
  if (focused) audit.parts.pick.focus({ preventScroll: true });
  const shelf = [...audits.values()].filter((other) => other.shelved).sort((a, b) => a.until - b.until);
  for (const old of shelf.slice(0, -MAX_ENDED)) if (old.id !== selected) remove(old);
}

function remove(audit) {
  audit.stop?.abort();
  audit.row.remove();
  audits.delete(audit.id);
}

function record(audit, entry) {
  audit.count++;
  audit.events.push({ ...entry, number: audit.count, at: new Date() });
  if (audit.events.length > MAX_EVENTS) audit.events.shift();
}

/** The names of the fields that differ. */
function changes(before, after) {
  return new Set(before ? Object.keys(after).filter((name) => after[name] !== before[name]) : []);
}

function summary({ id, progress }) {
  if (progress.status === 'failed') return `Audit ${id} failed.`;
  return `Audit ${id} completed${progress.geo_score === undefined ? '' : `, score ${score(progress)}`}.`;
}

// ---- painting ----

const stale = new Set();
let frame;

/** Shows an audit, or only what is common to all, in the next frame. */
function paint(audit) {
  if (audit) stale.add(audit);
  frame ??= requestAnimationFrame(() => {
    frame = undefined;
    for (const each of stale) paintRow(each);
    if (audits.has(selected)) paintDetail(audits.get(selected));
    stale.clear();
    paintTotals();
  });
}

function paintRow(audit) {
  const { row, parts, progress } = audit;
  row.dataset.state = audit.state;
  row.dataset.status = progress?.status ?? '';
  row.toggleAttribute('data-selected', audit.id === selected);
  parts.pick.setAttribute('aria-pressed', String(audit.id === selected));
  parts.chip.textContent = progress?.status ?? '';
  parts.percent.textContent = progress?.progress ?? 0;
  parts.fill.style.width = `${progress?.progress ?? 0}%`;
  parts.bar.setAttribute('aria-valuenow', progress?.progress ?? 0);
  parts.stage.textContent = clip(stage(audit));
  parts['link-text'].textContent = connection(audit);
  parts.score.textContent = progress?.geo_score === undefined ? '' : `Score ${score(progress)}`;
  parts.pages.textContent = progress?.total_pages === undefined ? '' : pages(progress);
  parts.elapsed.textContent = elapsed(audit);
}

function paintDetail(audit) {
  const { progress } = audit;
  const panel = $('detail');
  panel.hidden = false;
  panel.dataset.status = progress?.status ?? '';
  $('detail-title').textContent = `Audit ${audit.id}`;
  $('detail-status').textContent = progress?.status ?? '';
  $('detail-link').dataset.state = audit.state;
  $('detail-link-text').textContent = connection(audit);
  $('fact-progress').textContent = progress ? `${progress.progress} %` : '–';
  $('fact-score').textContent = score(progress);
  $('fact-pages').textContent = progress?.total_pages?.toLocaleString() ?? '–';
  $('fact-elapsed').textContent = elapsed(audit) || '–';
  $('detail-error').hidden = !progress?.error;
  $('detail-error').textContent = clip(progress?.error ?? '');
  paintLog(audit);
}

let logged = {}; // which audit's events are in the log, and up to which

function paintLog(audit) {
  const log = $('log');
  const same = logged.id === audit.id;
  const fresh = audit.events.filter((event) => !same || event.number > logged.number);
  const items = fresh.map((event) => logItem(event, same)).reverse();
  if (same) log.prepend(...items);
  else log.replaceChildren(...items);
  while (log.childElementCount > MAX_EVENTS) log.lastElementChild.remove();
  logged = { id: audit.id, number: audit.count };
  $('log-count').textContent = audit.count > 0 ? `${audit.count.toLocaleString()}, newest first` : '';
}

function logItem({ at, id, data, note, changed }, fresh) {
  const item = make('li', fresh ? 'fresh' : '');
  const time = make('time', '', clock(at));
  time.dateTime = at.toISOString();
  item.append(time);
  if (data === undefined) {
    item.classList.add('trouble');
    item.append(make('span', 'note', clip(note)));
    return item;
  }
  const name = make('span', 'id', id);
  name.title = `id: ${id}`;
  const code = document.createElement('code');
  code.append(...coloured(clip(data), changed));
  item.append(name, code);
  return item;
}

/** The text of a JSON object, unaltered, in pieces: keys, strings, numbers, and the values that have changed. */
function coloured(json, changed) {
  const pieces = [];
  let key;
  let end = 0;
  const between = (text) => {
    pieces.push(text);
    if (text.includes(',')) pieces.push(make('wbr')); // better a line's end here than inside a name
  };
  for (const match of json.matchAll(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null/g)) {
    between(json.slice(end, match.index));
    end = match.index + match[0].length;
    if (json[end] === ':') {
      key = match[0].slice(1, -1);
      pieces.push(make('span', 'key', match[0]));
    } else {
      pieces.push(make('span', changed.has(key) ? 'changed' : json[match.index] === '"' ? 'text' : 'number', match[0]));
    }
  }
  pieces.push(json.slice(end));
  return pieces;
}

function paintTotals() {
  const all = [...audits.values()];
  const current = all.filter((audit) => !audit.shelved);
  const running = current.filter((audit) => !audit.ended).length;
  $('running-count').textContent = current.length === 0 ? '' : `${running} of ${current.length} in progress`;
  const shelf = all.filter((audit) => audit.shelved);
  const failed = shelf.filter((audit) => audit.progress?.status === 'failed').length;
  $('ended-part').hidden = shelf.length === 0;
  $('ended-count').textContent = `${shelf.length - failed} completed, ${failed} failed`;

  const watched = all.filter((audit) => audit.stop && !audit.over);
  const count = (state) => watched.filter((audit) => audit.state === state).length;
  const [state, text] =
    count('offline') > 0 || (unreachable && watched.length === 0) ? ['offline', 'Offline, trying again']
      : count('connecting') > 0 || !dev ? ['connecting', 'Connecting']
        : count('live') > 0 ? ['live', `Live, ${count('live')} ${count('live') === 1 ? 'stream' : 'streams'}`]
          : ['done', 'No stream open'];
  $('link').dataset.state = state;
  setText($('link-text'), text);
}

function beat(audit) {
  if (still.matches) return;
  for (const dot of [audit.parts.dot, ...(audit.id === selected ? [$('detail-link').firstElementChild] : [])]) {
    dot.classList.add('beat');
  }
}

function select(id, byUser = false) {
  const before = audits.get(selected);
  selected = id;
  if (before) paint(before);
  paint(audits.get(id));
  if (byUser && narrow.matches) {
    $('detail').scrollIntoView({ behavior: still.matches ? 'auto' : 'smooth', block: 'start' });
    $('detail').focus({ preventScroll: true });
  }
}

// ---- words ----

function stage({ progress, state, info }) {
  if (!progress) return state === 'denied' ? info.error : state === 'waiting' ? 'Waiting for a free stream' : 'Waiting for the first event';
  if (progress.error) return progress.error;
  return progress.message ?? { pending: 'Waiting to start', completed: 'Finished', failed: 'Failed' }[progress.status] ?? '';
}

function connection({ state, info, retryAt }) {
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  switch (state) {
    case 'offline': return seconds > 0 ? `offline, again in ${seconds} s` : 'offline, trying again';
    case 'connecting': return seconds > 0 ? `reconnecting in ${seconds} s` : 'connecting';
    case 'denied': return `refused: ${info.error}`;
    case 'done': return 'stream ended';
    case 'waiting': return 'not watched yet';
    default: return state;
  }
}

/** The API does not say when an audit began, so this counts from its first event here. */
function elapsed({ since, until }) {
  if (since === undefined) return '';
  const seconds = Math.floor(((until ?? Date.now()) - since) / 1000);
  const pad = (n) => String(n).padStart(2, '0');
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes}:${pad(seconds % 60)}` : `${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(seconds % 60)}`;
}

function score(progress) {
  return progress?.geo_score?.toLocaleString(undefined, { maximumFractionDigits: 1 }) ?? '–';
}

function pages({ total_pages: n }) {
  return `${n.toLocaleString()} ${n === 1 ? 'page' : 'pages'}`;
}

function clock(at) {
  const pad = (n, width) => String(n).padStart(width, '0');
  return `${pad(at.getHours(), 2)}:${pad(at.getMinutes(), 2)}:${pad(at.getSeconds(), 2)}.${pad(at.getMilliseconds(), 3)}`;
}

function clip(text) {
  return text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT)}… (${(text.length - MAX_TEXT).toLocaleString()} more characters)`;
}

function make(tag, className, text = '') {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** For screen readers: the ends of audits and what the buttons did, nothing else. */
function announce(text) {
  $('announce').textContent = text;
}

// ---- start ----

for (const button of document.querySelectorAll('.copy')) {
  button.addEventListener('click', async () => {
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
  });
}

document.addEventListener('animationend', ({ target }) => target.classList.remove('beat'));

setInterval(() => { // elapsed times and count-downs
  for (const audit of audits.values()) if (!audit.over) paint(audit);
}, 1000);

readDev().catch(() => {}); // the notice says why
reread();
