// The application: Express, pg-boss and a page with a bar for each of the user's jobs. What it does for auditstream is marked.
import { fileURLToPath } from 'node:url';
import express from 'express';
import PgBoss from 'pg-boss';

import { tokenFor } from '../token.mjs';

const { PORT, API_PORT, DATABASE_URL } = process.env;
const user = () => 'user-1'; // of your session

const boss = new PgBoss(DATABASE_URL);
boss.on('error', console.error);
await boss.start();
await boss.createQueue('reports');
if (process.argv[2] === 'migrate') { // pg-boss makes its tables; then they can be adopted, see start
  await boss.stop({ graceful: false });
  process.exit();
}

/** A job reports with an UPDATE of its own row, which is all that auditstream asks of it. */
const report = (id, progress) => boss.getDb().executeSql('update pgboss.job set output = $1 where id = $2', [JSON.stringify({ progress }), id]);

await boss.work('reports', { pollingIntervalSeconds: 0.5 }, async ([{ id, data }]) => {
  for (let page = 1; page <= data.pages; page++) {
    await new Promise((resolve) => { setTimeout(resolve, 300); }); // the work
    await report(id, Math.round(100 * page / data.pages));
    if (page === data.breaksAt) throw new Error(`Page ${page} cannot be printed`);
  }
});

const app = express();
app.use(express.json());
app.use(express.static(fileURLToPath(new URL('public', import.meta.url))));

app.post('/reports', async (request, response) => {
  const { pages, breaksAt } = request.body;
  response.json({ id: await boss.send('reports', { user_id: user(request), pages, breaksAt }, { retryLimit: 0 }) }); // whose it is
});

// For the page: the client, where auditstream is, and a token of whoever is logged in.
app.get('/auditstream-client.js', (request, response) => response.sendFile(fileURLToPath(import.meta.resolve('auditstream-client'))));
app.get('/auditstream.json', (request, response) => response.json({ base: `http://127.0.0.1:${API_PORT}`, token: tokenFor(user(request)) }));

app.listen(PORT, '127.0.0.1', () => console.log(`Open http://127.0.0.1:${PORT}/`));
