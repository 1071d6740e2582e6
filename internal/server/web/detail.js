// The detail: one audit, its events as they come, and how late they were.
//
// What is honest: the API does not tell when a row was committed. A development server does, so there the time from the
// commit to here is shown; elsewhere it is the time between two events.

import { feed, link, nameOf } from '/stream.js';
import { $, clip, clock, connection, elapsed, ended, make, median, score, setText, span, stage } from '/words.js';

const BARS = 60;
const LATE = 1000; // ms

const dev = document.documentElement.dataset.mode === 'dev' && feed === 'audits'; // of which it tells the commits
const svg = 'http://www.w3.org/2000/svg';
const bars = [];

for (let i = 0; i < BARS; i++) {
  const bar = document.createElementNS(svg, 'rect');
  bar.setAttribute('x', i * 10 + 1.5);
  bar.setAttribute('width', 7);
  $('latency').append(bar);
  bars.push(bar);
}
if (!dev) {
  $('latency-title').textContent = 'Time between events';
  $('elapsed-name').textContent = 'Watched for';
}

export function paintDetail(audit) {
  const { progress } = audit;
  const panel = $('detail');
  panel.hidden = false;
  panel.dataset.status = audit.gone ? 'gone' : progress?.status ?? '';
  setText($('detail-title'), nameOf(audit.id));
  setText($('detail-site'), audit.byHand ? 'changed by hand' : audit.site.replace(/^https?:\/\//, ''));
  const over = ended(progress) || audit.gone;
  $('detail-link').dataset.state = over ? 'done' : link.state;
  setText($('detail-link-text'), over ? 'Ended' : connection(link));
  setText($('detail-status'), audit.gone ? 'gone' : progress?.status ?? 'unknown');
  setText($('detail-percent'), String(progress?.progress ?? 0));
  setText($('detail-stage'), progress?.error ? clip(progress.message ?? '') : clip(stage(audit)));
  $('detail-bar').firstElementChild.style.width = `${progress?.progress ?? 0}%`;
  $('detail-bar').setAttribute('aria-valuenow', progress?.progress ?? 0);
  $('detail-error').hidden = !progress?.error;
  setText($('detail-error'), clip(progress?.error ?? ''));
  setText($('fact-score'), score(progress));
  setText($('fact-pages'), progress?.total_pages?.toLocaleString() ?? '–');
  if (feed !== 'audits') paintFields(progress ?? {});
  setText($('fact-elapsed'), elapsed(audit) || '–');
  setText($('fact-events'), audit.count.toLocaleString());
  paintLatency(audit);
  paintLog(audit);
}

const COMMON = ['id', 'status', 'progress', 'message', 'error'];

/** The fields that a feed's rows have beside those of all. */
function paintFields(progress) {
  const facts = $('fact-elapsed').closest('dl');
  for (const name of ['fact-score', 'fact-pages']) $(name).parentElement.hidden = true;
  const fields = Object.entries(progress).filter(([name]) => !COMMON.includes(name));
  for (const old of facts.querySelectorAll('.field')) if (!fields.some(([name]) => name === old.dataset.name)) old.remove();
  for (const [name, value] of fields) {
    let fact = [...facts.querySelectorAll('.field')].find((other) => other.dataset.name === name);
    if (!fact) {
      fact = make('div', 'field');
      fact.dataset.name = name;
      fact.append(make('dt', '', name), make('dd'));
      facts.append(fact);
    }
    setText(fact.lastElementChild, clip(typeof value === 'object' ? JSON.stringify(value) : String(value)));
  }
}

const late = (event) => dev ? event.committed === undefined || event.first ? undefined : Math.max(0, event.at - event.committed) : event.gap;

function paintLatency(audit) {
  const times = audit.events.map(late).filter((ms) => ms !== undefined).slice(-BARS);
  const most = Math.max(10, ...times);
  bars.forEach((bar, i) => {
    const ms = times[i - BARS + times.length];
    const height = ms === undefined ? 1 : 3 + 41 * Math.log1p(ms) / Math.log1p(most);
    bar.setAttribute('y', 44 - height);
    bar.setAttribute('height', height);
    bar.setAttribute('class', ms === undefined ? 'none' : dev && ms >= LATE ? 'late' : '');
  });
  const of = times.length === 1 ? 'one event' : `${times.length} events`;
  setText($('latency-text'), times.length === 0 ? (dev ? 'measured from the next change on' : 'from the second event on')
    : `last ${span(times.at(-1))}, median of ${of} ${span(median(times))}, longest ${span(Math.max(...times))}`);
}

let logged = {}; // which audit's events are in the log, and up to which

function paintLog(audit) {
  const log = $('log');
  const same = logged.id === audit.id;
  const fresh = audit.events.filter((event) => !same || event.number > logged.number);
  const items = fresh.map((event) => logItem(event, same)).reverse();
  if (same) log.prepend(...items);
  else log.replaceChildren(...items);
  while (log.childElementCount > audit.events.length) log.lastElementChild.remove();
  logged = { id: audit.id, number: audit.count };
}

function logItem(event, fresh) {
  const item = make('li', fresh ? 'fresh' : '');
  item.title = `id: ${event.id}\n${clip(event.data)}`;
  const time = make('time', '', clock(event.at));
  time.dateTime = new Date(event.at).toISOString();
  event.cell = make('span', 'since');
  paintSince(event);
  const code = document.createElement('code');
  for (const [name, value] of event.changes) {
    const pair = make('span', 'pair');
    pair.append(make('span', 'key', name), ' ', make('span', typeof value === 'number' ? 'number' : 'text', clip(String(value))));
    code.append(pair, ' ');
  }
  item.append(time, event.cell, make('span', 'id', event.id), code);
  return item;
}

/** The time since the commit, once that is known; or since the event before. */
export function paintSince(event) {
  if (!event.cell) return;
  const ms = late(event);
  if (event.first) {
    setText(event.cell, 'at first');
    event.cell.title = 'the state at the time of connecting';
  } else if (dev) {
    setText(event.cell, ms !== undefined ? `+${span(ms)}` : event.missed ? '–' : '…');
    event.cell.title = ms === undefined ? 'The time of the commit is not known: another one followed before it was looked up' : 'since the commit';
  } else {
    setText(event.cell, ms === undefined ? 'first' : `+${span(ms)}`);
    event.cell.title = 'since the event before';
  }
  event.cell.classList.toggle('late', dev && ms >= LATE);
}
