// How things are said: numbers, times and states as text, and the elements that text goes into.
//
// The rule that keeps it right: what comes from the server is text and goes in as textContent.

const MAX_TEXT = 4000; // characters of an error or a value that are shown

export const $ = (id) => document.getElementById(id);

export function make(tag, className = '', text = '') {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

/** Changes a text only when it differs: selections stay, and live regions do not chatter. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** For screen readers: the ends of audits and what the buttons did, nothing else. */
export function announce(text) {
  setText($('announce'), text);
}

const pad = (n, width = 2) => String(n).padStart(width, '0');

export function clock(ms) {
  const at = new Date(ms);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes}:${pad(seconds % 60)}` : `${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(seconds % 60)}`;
}

/** A span of time with three digits or so: 0.8 ms, 12 ms, 1.2 s, 3:20. */
export function span(ms) {
  if (ms < 9.95) return `${Math.max(0, ms).toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  return ms < 99_950 ? `${(ms / 1000).toFixed(1)} s` : duration(ms);
}

export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

export function clip(text) {
  return text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT)}… (${(text.length - MAX_TEXT).toLocaleString()} more characters)`;
}

export function score(progress) {
  return progress?.geo_score?.toLocaleString(undefined, { maximumFractionDigits: 1 }) ?? '–';
}

/** States that the server says are their rows' last ones, where the status is a feed's own word. */
export const finals = new WeakSet();

export const ended = (progress) => progress?.status === 'completed' || progress?.status === 'failed' || finals.has(progress);

/** What an audit is doing. */
export function stage({ progress, gone }) {
  if (gone) return gone === 'Audit not found' || gone === 'No such row' ? 'Deleted' : gone;
  if (!progress) return 'Waiting for its first event';
  return progress.error || progress.message
    || { pending: 'Waiting to start', completed: 'Finished', failed: 'Failed' }[progress.status] || progress.status;
}

/** How long it took, or takes. Where the start is not known it counts from the first event here. */
export function elapsed({ byHand, started, since, until, progress }) {
  if (byHand) return '';
  const from = started ?? since;
  if (from === undefined || (ended(progress) && until === undefined)) return '';
  return duration((until ?? Date.now()) - from);
}

/** The connection in words. */
export function connection({ state, info, retryAt }) {
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000)); // NaN where nothing is planned
  switch (state) {
    case 'live': return 'Live';
    case 'polling': return 'Polling every 5 s';
    case 'offline': return seconds > 0 ? `Offline, again in ${seconds} s` : 'Offline, trying again';
    case 'connecting': return seconds > 0 ? `Reconnecting in ${seconds} s` : 'Connecting';
    case 'denied': return info.error ? `Refused: ${info.error}` : 'Signed out';
    default: return 'Ended';
  }
}
