// The list: a row for each audit, those that run above those that have ended.

import { $, clip, elapsed, ended, make, score, setText, stage } from '/words.js';
import { audits, feed, link, nameOf } from '/stream.js';

const LINGER = 4000; // ms that an ended audit stays where everybody saw it run
const MAX_ENDED = 8;

/** Whether a row is newer, as far as keys tell: integers of any length do. */
const newer = (a, b) => /^\d+$/.test(a) && /^\d+$/.test(b) && (a.length - b.length || (a > b ? 1 : -1)) > 0;

let picks = 0;

const still = matchMedia('(prefers-reduced-motion: reduce)');

export function addRow(audit) {
  const row = $('row').content.firstElementChild.cloneNode(true);
  audit.row = row;
  audit.parts = Object.fromEntries(['pick', 'site', 'tag', 'outcome', 'percent', 'bar', 'fill', 'stage', 'elapsed']
    .map((name) => [name, row.querySelector(`.${name}`)]));
  const { pick, bar } = audit.parts;
  pick.textContent = feed === 'audits' ? nameOf(audit.id) : audit.id;
  pick.href = `#/${encodeURIComponent(audit.id)}`;
  pick.id = `pick-${++picks}`;
  bar.setAttribute('aria-labelledby', pick.id);
  move(() => {
    const after = [...$('running').children].find((other) => newer(other.dataset.id, audit.id));
    row.dataset.id = audit.id;
    $('running').insertBefore(row, after ?? null);
  });
  if (!still.matches) row.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 300 });
}

export function paintRow(audit, selected) {
  const { row, parts, progress } = audit;
  row.dataset.status = audit.gone ? 'gone' : progress?.status ?? '';
  row.toggleAttribute('data-selected', selected);
  if (selected) parts.pick.setAttribute('aria-current', 'true');
  else parts.pick.removeAttribute('aria-current');
  setText(parts.site, audit.byHand ? '' : audit.site.replace(/^https?:\/\//, ''));
  parts.tag.hidden = !audit.byHand;
  setText(parts.outcome, progress?.status === 'completed' ? (progress.geo_score === undefined ? 'completed' : `score ${score(progress)}`)
    : progress?.status === 'failed' || ended(progress) ? progress.status : progress?.geo_score === undefined ? '' : `score ${score(progress)}`);
  setText(parts.percent, progress ? String(progress.progress) : '');
  parts.fill.style.width = `${progress?.progress ?? 0}%`;
  parts.bar.setAttribute('aria-valuenow', progress?.progress ?? 0);
  parts.bar.setAttribute('aria-valuetext', `${progress?.progress ?? 0} %, ${progress?.status ?? 'unknown'}`);
  setText(parts.stage, clip(stage(audit)));
  setText(parts.elapsed, elapsed(audit));
}

/** Moves an audit that has ended below the others, at once when nobody saw it run. */
export function shelve(audit, seen, then) {
  setTimeout(() => {
    if (!audits.has(audit.id) || audit.shelved) return;
    audit.shelved = true;
    move(() => {
      const focused = audit.row.contains(document.activeElement); // moving an element takes the focus from it
      const after = seen ? $('ended').firstChild
        : [...$('ended').children].find((other) => newer(audit.id, other.dataset.id)) ?? null;
      $('ended').insertBefore(audit.row, after);
      if (focused) audit.parts.pick.focus({ preventScroll: true });
    });
    then();
  }, seen ? LINGER : 0);
}

/** Forgets the oldest of those that have ended, except what is on display. */
export function trim(selected) {
  const rows = [...$('ended').children];
  for (const row of rows.slice(MAX_ENDED)) {
    if (row.dataset.id === selected) continue;
    row.remove();
    audits.delete(row.dataset.id);
  }
}

/** Does something to the order of the rows, and lets those that are elsewhere then glide there. */
function move(change) {
  const rows = [...document.querySelectorAll('.rows > .row')];
  const before = new Map(rows.map((row) => [row, row.getBoundingClientRect().top]));
  change();
  if (still.matches) return;
  for (const [row, top] of before) {
    const by = top - row.getBoundingClientRect().top;
    if (by !== 0) row.animate([{ transform: `translateY(${by}px)` }, { transform: 'none' }], { duration: 280, easing: 'cubic-bezier(.2, .7, .2, 1)' });
  }
}

export function paintTotals(text) {
  const all = [...audits.values()];
  const running = all.filter((audit) => audit.progress && !ended(audit.progress) && !audit.gone).length;
  const shelf = all.filter((audit) => audit.shelved && !audit.gone);
  const failed = shelf.filter((audit) => audit.progress?.status === 'failed').length;
  setText($('running-count'), running === 0 ? '' : `${link.more ? 'the newest ' : ''}${running} in progress`);
  $('ended-part').hidden = $('ended').childElementCount === 0;
  const completed = shelf.filter((audit) => audit.progress?.status === 'completed').length;
  const others = shelf.length - completed - failed; // ended by words of their feed
  setText($('ended-count'), [completed > 0 && `${completed} completed`, failed > 0 && `${failed} failed`, others > 0 && `${others} otherwise`].filter(Boolean).join(', '));
  $('empty').hidden = !text;
  if (text && $('empty').textContent !== text) $('empty').replaceChildren(make('span', '', text));
}
