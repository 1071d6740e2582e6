import type { AuditId, AuditProgress, Progress, ProgressOptions, WatchOptions, WatchState } from './client.js';

/**
 * Watches an audit while the component is mounted; a new id starts anew. `progress` is null until the first state is
 * there, `error` while there is nothing to say.
 */
export function useAuditProgress(
  id: AuditId,
  options?: Pick<WatchOptions, 'token' | 'base' | 'heartbeat' | 'background'>,
): { progress: AuditProgress | null; state: WatchState; error: string | null };

/** The same of a row of any feed. */
export function useProgress(
  feed: string,
  id: AuditId,
  options?: Pick<ProgressOptions, 'token' | 'base' | 'heartbeat' | 'background'>,
): { progress: Progress | null; state: WatchState; error: string | null };
