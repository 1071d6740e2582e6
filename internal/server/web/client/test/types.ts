// What users write must have types: checked by tsc, never run.
import { AuthEventSource, watchAudit, watchAudits, watchProgress, type Outcome, type Progress, type WatchState } from 'auditstream-client';
import { useAuditProgress, useProgress } from 'auditstream-client/react';

import { fakeProgress, testServer, type TestServer } from 'auditstream-client/testing';

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
const job: Promise<Outcome> = watchProgress('jobs', '6f1c2b9e-41d5-4f0c-9a57-2f6e1c0b7d38', {
  token: 'T',
  onProgress: (row: Progress, event) => { const id: string = row.id; const kind: unknown = row.kind; const end: true | undefined = event.end; void id; void kind; void end; },
  onMore: (shown) => { const n: number = shown; void n; },
});
void job;
void watchProgress('jobs', [1, 2n, 'a/b'] as const);
void watchProgress('jobs', null, { onState: (state) => { const s: WatchState = state; void s; } });
void watchProgress('jobs');
const row = useProgress('jobs', 'a/b', { token: async () => 'T' });
const text: string | undefined = row.progress?.id;
void text;
// @ts-expect-error: a feed has a name
void watchProgress(42);
// @ts-expect-error: what a row has is not known
void watchProgress('jobs', 1, { onProgress: (row) => { const n: number = row.attempt; void n; } });
// @ts-expect-error: there is no such option
void watchAudit(42, { tokn: 'T' });
// @ts-expect-error: there is no such state
const state: WatchState = 'lost';
void state;
const fake = fakeProgress();
fake.play('42', { status: 'running', progress: 55, geo_score: 1 });
fake.play('jobs/7', { status: 'cancelled' }, { end: true });
fake.connection('offline', { error: 'Connection lost', retryIn: 1000 });
// @ts-expect-error: a state has a status
fake.play(42, { progress: 55 });
// @ts-expect-error: a refusal has a row
fake.connection('denied');
const server: TestServer = await testServer({ install: 'public.audits', as: 'user-1' });
const viewer = await server.watch(42, { as: 7 });
const reached: Progress = await viewer.waitFor((state) => state.progress === 55, { timeout: 1000 });
void reached;
void server.waitFor('jobs/7', (state) => state.status === 'done', { token: server.token('user-1', { email: 'a@example.com' }) });
// @ts-expect-error: a watch without a row
void server.watch();
export {};
