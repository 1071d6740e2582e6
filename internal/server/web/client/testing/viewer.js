import { watchProgress } from '../client.js';

/** What is most often wrong when a viewer is refused. */
const GUESSES = [
  [/not found|No such row/, 'The server sees what is committed: commit the transaction that inserts the row, and look at its id.'],
  [/Cross-user/, "The row is somebody else's: its user_id is not what the viewer is called."],
  [/No such feed/, "No table was adopted under this feed's name: give install, or run auditstream install --feed NAME."],
];

/** Somebody who watches a row, and remembers what came. */
export class Viewer {
  states = [];
  #from = 0; // the state that was waited for last
  #stop = new AbortController();
  #waiting = new Set(); // looks again
  #key;
  #user;
  #connection = 'connecting';
  #error;
  #outcome;

  constructor({ feed, id }, user, { base, token }) {
    this.#key = `${feed}/${id}`;
    this.#user = user ?? 'the owner of the token';
    this.over = watchProgress(feed, id, {
      base, token, signal: this.#stop.signal,
      onProgress: (state) => { this.states.push(state); this.#look(); },
      onState: (state, { error }) => { this.#connection = state; this.#error = error ?? this.#error; this.#look(); },
    }).then((outcome) => { this.#outcome = outcome ?? 'stopped'; this.#look(); });
  }

  /** Resolves with the first state that fulfils the predicate, of those since the one that was waited for before, itself included. */
  waitFor(predicate, { timeout = 10_000 } = {}) {
    return new Promise((resolve, reject) => {
      const end = (settle, value) => {
        clearTimeout(late);
        this.#waiting.delete(look);
        settle(value);
      };
      const look = () => {
        try {
          const found = this.states.findIndex((state, k) => k >= this.#from && predicate(state));
          if (found >= 0) {
            this.#from = found;
            end(resolve, this.states[found]);
          } else if (this.#outcome) end(reject, this.#failure(`has come to its end (${this.#outcome}) before`));
        } catch (error) { // the predicate's
          end(reject, error);
        }
      };
      const late = setTimeout(() => end(reject, this.#failure(`has not shown what was waited for after ${timeout} ms`)), timeout);
      this.#waiting.add(look);
      look();
    });
  }

  stop() {
    this.#stop.abort();
  }

  #look() {
    for (const look of [...this.#waiting]) look();
  }

  #failure(what) {
    const seen = this.states.map((state) => `  ${JSON.stringify(state)}`);
    const guess = GUESSES.find(([pattern]) => pattern.test(this.#error))?.[1]
      ?? (seen.length ? 'Was the change committed, and of this row?' : '');
    return new Error([
      `${this.#key} ${what}. ${this.#user} saw ${seen.length ? `${seen.length} state${seen.length > 1 ? 's' : ''}:` : 'no state.'}`, ...seen,
      `The connection is ${this.#connection}${this.#error ? `: ${this.#error}` : ''}. ${guess}`.trimEnd(),
    ].join('\n'));
  }
}
