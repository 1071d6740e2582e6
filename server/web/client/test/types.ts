// What users write must have types: checked by tsc, never run.
import { AuthEventSource, watchAudit, watchAudits, type Outcome, type WatchState } from 'auditstream-client';
import { useAuditProgress } from 'auditstream-client/react';

const outcome: Promise<Outcome> = watchAudit(42, {
  token: async () => 'T',
  onProgress: (audit, event) => { const n: number = audit.progress; const exact: string = audit.id; void exact; const id: string = event.id; void n; void id; },
  onState: (state, info) => { const s: WatchState = state; const ms: number | undefined = info.retryIn; void s; void ms; },
  signal: new AbortController().signal,
});
void outcome;
void watchAudits([1, 2n, '3'] as const, { token: 'T' });
void watchAudits();
void watchAudits(null, { token: 'T' });
const standard: EventSource = new AuthEventSource('/x', { headers: { Authorization: 'Bearer T' }, withCredentials: true });
void standard;
const shown = useAuditProgress(42, { token: 'T' });
const percent: number | undefined = shown.progress?.progress;
void percent;
// @ts-expect-error: there is no such option
void watchAudit(42, { tokn: 'T' });
// @ts-expect-error: there is no such state
const state: WatchState = 'lost';
void state;
