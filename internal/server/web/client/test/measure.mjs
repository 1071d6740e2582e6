// Watches one audit at several servers: node measure.mjs ID NAME=URL ..., with the token in TOKEN. Prints, for each state that is
// shown, the name, total_pages and the
// time in ms since 1970; first, without a name, the time of the beginning.
import { watchAudit } from '../client.js';

const [id, ...servers] = process.argv.slice(2);
console.log(JSON.stringify({ name: '', pages: 0, at: Date.now() })); // the beginning
for (const server of servers) {
  const [, name, base] = /^(.*?)=(.*)$/.exec(server);
  void watchAudit(id, {
    base, token: async () => process.env.TOKEN,
    onProgress: (audit) => console.log(JSON.stringify({ name, pages: audit.total_pages, at: Date.now() })),
  });
}
