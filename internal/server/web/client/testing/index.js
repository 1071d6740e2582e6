// auditstream in somebody's tests: a server beside a database, and states that are played without one. How it is used is in
// docs/testing.md and index.d.ts.

export { fakeProgress } from './fake.js';
export { testServer } from './server.js';
