// useAuditProgress: an audit's state in a React component.
//
//   const { progress, state, error } = useAuditProgress(42, { token: () => session.freshToken() });

import { useEffect, useRef, useState } from 'react';

import { watchProgress } from './client.js';

const NOTHING = { progress: null, state: 'connecting', error: null };

/** The state of an audit; see useProgress. */
export const useAuditProgress = (id, options) => useProgress('audits', id, options);

/**
 * Watches a row of a feed while the component is mounted. A new id starts anew; so does another token that is a string, while a
 * function may be another one at each render: the latest is asked.
 */
export function useProgress(feed, id, { token, base, heartbeat, background } = {}) {
  const [shown, setShown] = useState(NOTHING);
  const latest = useRef(token);
  useEffect(() => { latest.current = token; });
  const text = typeof token === 'function' ? undefined : token;
  const asked = typeof token === 'function';

  useEffect(() => {
    const stop = new AbortController();
    const { signal } = stop;
    const show = (change) => { if (!signal.aborted) setShown((before) => ({ ...before, ...change })); };
    setShown(NOTHING);
    void watchProgress(feed, id, {
      token: asked ? () => latest.current() : text,
      base,
      heartbeat,
      background,
      signal,
      onProgress: (progress) => show({ progress }),
      onState: (state, { error = null }) => show({ state, error }),
    });
    return () => stop.abort();
  }, [feed, id, text, asked, base, heartbeat, background]);
  return shown;
}
