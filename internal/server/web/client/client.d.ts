/** The state of an audit, as the server sends it. Optional fields are absent while they have no value. */
export interface AuditProgress {
  /** a text where the table's key is no integer */
  audit_id: number;
  /** audit_id, exactly, as text: a number above 2^53 is rounded */
  id: string;
  /** pending, running, completed, failed; others are shown as they are and end nothing */
  status: string;
  /** 0 to 100 */
  progress: number;
  message?: string;
  geo_score?: number;
  total_pages?: number;
  /** what went wrong; only with status failed */
  error?: string;
}

export interface StreamEvent {
  type: string;
  data: string;
  /** the last id seen, with this event or before it */
  id: string;
  /** its row has ended, although its status is neither completed nor failed: the table was adopted with --ends */
  end?: true;
}

/**
 * How the connection is, for the interface:
 * - `connecting`: on the way, for the first time or after a stream that was live, or paused in a hidden tab
 * - `live`: changes arrive as they are committed
 * - `polling`: changes arrive by asking for them every 5 s, since the network lets no stream through for now
 * - `offline`: the last attempt failed; another one follows by itself
 * - `done`: what was watched has ended, and so has the watching
 * - `denied`: the server refuses for good; see `info.error`
 */
export type WatchState = 'connecting' | 'live' | 'polling' | 'offline' | 'done' | 'denied';

export interface WatchInfo {
  /** why */
  error?: string;
  /** in how many ms the next attempt follows */
  retryIn?: number;
}

/** A function's promise may be rejected: it is then asked again, as after any failure. */
export type Token = string | (() => string | Promise<string>);

export interface WatchOptions {
  /** the JWT, or a function that is asked for one before every connection; leave it out where a cookie authenticates */
  token?: Token;
  /** where the API is, such as https://api.example.com; by default this page's origin */
  base?: string;
  /**
   * in place of what the server says of its SSE_HEARTBEAT_SECONDS, in ms. After two of them without a byte the stream counts as
   * held back by a proxy, and states are polled until it is not
   */
  heartbeat?: number;
  /**
   * keep the stream while the tab is hidden; otherwise it is given back after a minute, or when another tab waits for a
   * connection, until the tab is looked at
   */
  background?: boolean;
  /** called with the current state on every connection, then with every change */
  onProgress?: (progress: AuditProgress, event: StreamEvent) => void;
  /** called, where all of the user's are watched, with how many are shown, if the user has more that have not ended */
  onMore?: (shown: number) => void;
  onState?: (state: WatchState, info: WatchInfo) => void;
  /** stops watching */
  signal?: AbortSignal;
}

/** How it ended; undefined when `signal` stopped it. */
export type Outcome = 'done' | 'denied' | undefined;
export type AuditId = number | bigint | string;

/** The state of a row of any feed: its status and progress, and the fields that the operator shows. */
export interface Progress {
  /** exactly as the table has it, also where it is a number */
  id: string;
  /** as the operator has named it; completed and failed end a row, and others may */
  status: string;
  /** 0 to 100 */
  progress: number;
  message?: string;
  /** what went wrong; only with status failed */
  error?: string;
  [field: string]: unknown;
}

export interface ProgressOptions extends Omit<WatchOptions, 'onProgress'> {
  /** called with the current state on every connection, then with every change */
  onProgress?: (progress: Progress, event: StreamEvent) => void;
}

/**
 * Follows a row of any feed until it has ended; several, 100 at most; or, without an id (null or undefined), all of the user's that
 * run, also those that start later. Never rejects.
 */
export function watchProgress(feed: string, id?: AuditId | readonly AuditId[] | null, options?: ProgressOptions): Promise<Outcome>;

/** Follows an audit until it has completed or failed, reconnecting as often as it takes. Never rejects. */
export function watchAudit(id: AuditId, options?: WatchOptions): Promise<Outcome>;

/**
 * Follows several audits, 100 at most, on one connection until all have ended. Without ids (null or undefined): all of the
 * user's that run, also those that start later, until `signal` or a refusal ends it. Never rejects.
 */
export function watchAudits(ids?: readonly AuditId[] | null, options?: WatchOptions): Promise<Outcome>;

export interface AuthEventSourceInit extends EventSourceInit {
  /** a function is asked for the headers before every connection */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
}

/**
 * EventSource with headers, for code that is written for EventSource. As in the standard, any status but 200 ends it for
 * good, and what breaks or ends is opened again after the server's `retry`; after further failures later, up to 30 s.
 */
export interface AuthEventSource extends EventSource {}
export const AuthEventSource: {
  new (url: string | URL, options?: AuthEventSourceInit): AuthEventSource;
  readonly prototype: AuthEventSource;
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSED: 2;
};

/** The wait before the next attempt, in ms: `retry` where the server ended the stream in order, then full jitter. */
export function backoff(failures: number, retry: number, orderly?: boolean): number;

/** Parses the event stream format of the HTML standard from chunks that may be cut anywhere. */
export class EventStreamParser {
  constructor(options: {
    onEvent: (event: StreamEvent) => void;
    /** the id to come back with, after each block, also one without data, which is no event */
    onId?: (id: string) => void;
    onRetry?: (ms: number) => void;
    /** what follows the colon */
    onComment?: (text: string) => void;
    /** of an earlier connection */
    lastEventId?: string;
  });
  push(chunk: Uint8Array): void;
}
