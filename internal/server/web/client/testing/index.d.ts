import type { AuditId, Outcome, Progress, StreamEvent, WatchInfo, WatchState } from '../client.js';

/** Which row: an id of audits (42, '42'), or of another feed 'jobs/KEY'. */
export type Row = AuditId;

export interface TestServerOptions {
  /** PostgreSQL of the tests; DATABASE_URL where it is left out. Its tables are somebody else's to make */
  databaseUrl?: string;
  /** the table to adopt, as auditstream install --table has it; left out where that was done */
  install?: string;
  /** the program; AUDITSTREAM_BIN or auditstream on PATH where it is left out */
  bin?: string;
  /** further variables of auditstream serve, like { SSE_RETRY_MS: '100' } */
  env?: Record<string, string>;
  /** of a server that runs already, in place of all of the above */
  url?: string;
  /** with url: the key with which it verifies tokens; JWT_SECRET where it is left out */
  secret?: string;
  /** who watches, unless a watch says otherwise: what user_id of the rows holds */
  as?: string | number;
  /** ms until it must be ready, 30,000 where it is left out */
  timeout?: number;
}

export interface WatchOptions {
  /** whose eyes: what user_id of the row holds */
  as?: string | number;
  /** in place of as: a token with other claims */
  token?: string;
  /** ms until it must have come, 10,000 where it is left out */
  timeout?: number;
}

export interface TestViewer {
  /** all that came so far, the oldest first */
  readonly states: readonly Progress[];
  /**
   * Resolves with the first state that fulfils the predicate, among those since the one that was waited for before, itself included.
   * Rejects after the time, or as soon as none can come any more, with an Error that has the states that came and what may be wrong.
   * States that follow each other within milliseconds may be skipped, the last one never: wait for what stays.
   */
  waitFor(predicate: (state: Progress) => boolean, options?: { timeout?: number }): Promise<Progress>;
  stop(): void;
}

export interface TestServer {
  /** for pages and other clients */
  readonly url: string;
  /** a token of this user's that is valid for an hour, with further claims, like { email: 'a@example.com' } */
  token(user: string | number | null, claims?: Record<string, unknown>): string;
  /** Resolves after the row's first state: what is committed from then on is seen. Rejects where the row may not be seen. */
  watch(row: Row, options?: WatchOptions): Promise<TestViewer>;
  /** watch, waitFor and stop in one. */
  waitFor(row: Row, predicate: (state: Progress) => boolean, options?: WatchOptions): Promise<Progress>;
  /** Ends the viewers, and the program if it was started. A process that ends without does so, too, unless it is killed. */
  stop(): Promise<void>;
}

/**
 * auditstream beside the database of a test: resolves once changes arrive. Several may run at a time, also beside one database. For
 * Node.js 20 or later.
 */
export function testServer(options?: TestServerOptions): Promise<TestServer>;

export interface FakeState {
  status: string;
  /** 0 where it is left out */
  progress?: number;
  message?: string;
  error?: string;
  [field: string]: unknown;
}

export interface FakeProgress {
  /**
   * Shows a state, whole as a server's, to all who watch the row now, before it returns, and to those who do later. completed and
   * failed end it, and { end: true } with another status, as --ends does.
   */
  play(row: Row, state: FakeState, options?: Pick<StreamEvent, 'end'>): void;
  /** Refuses those who watch the row, now and later: 'Audit not found' where the error is left out. */
  deny(row: Row, error?: string): void;
  /** Tells all who watch how the connection is, like 'offline', { error: 'Connection lost', retryIn: 1000 }, until the next state. */
  connection(state: Exclude<WatchState, 'done' | 'denied'>, info?: WatchInfo): void;
  /** What is watched now, as FEED/ID each; FEED/ for all of the user's. */
  watched(): string[];
  /** Ends all watches, as their signals would, and lets the client ask servers again. */
  restore(): void;
}

/**
 * Plays states to watchAudit, watchAudits, watchProgress, useAuditProgress and useProgress, from now until restore(): no request is made
 * and no token asked for. A row that nothing was played of stays 'connecting'. Callbacks are called before play returns, which React's
 * tests wrap into act(). Once at a time.
 */
export function fakeProgress(): FakeProgress;

export type { Outcome, Progress };
