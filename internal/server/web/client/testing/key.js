/** Whose state: 42 or '42' of audits, 'jobs/KEY' of another feed, as auditstream watch has it. */
export function keyOf(key) {
  const text = String(key ?? '');
  const slash = text.indexOf('/');
  const parts = slash < 0 ? { feed: 'audits', id: text } : { feed: text.slice(0, slash), id: text.slice(slash + 1) };
  if (!parts.feed || !parts.id) throw new TypeError(`no row is called ${JSON.stringify(key)}: give an id like '42', or FEED/KEY like 'jobs/42'`);
  return parts;
}
