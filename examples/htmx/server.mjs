// The application: pages and fragments of HTML from its own tables, with its own sessions. auditstream only says when to ask for a
// fragment again, so there is one place that draws a row, and it is here.
import { readFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import pg from 'pg';

import { tokenFor } from '../token.mjs';

const { PORT, API_PORT, DATABASE_URL } = process.env;
const db = new pg.Pool({ connectionString: DATABASE_URL });
const user = 'user-1'; // of your session

const page = (rows) => `<!doctype html><meta charset="utf-8"><title>Audits</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/page.css">
<script src="/htmx.js"></script><script src="/sse.js"></script>
<h1>Your audits <button hx-post="/audits" hx-target="#audits" hx-swap="afterbegin">New audit</button></h1>
<div id="audits">${rows.map(audit).join('')}</div>`;

const bar = ({ id, status, progress, message }) =>
  `<b>Audit ${id}</b> <progress max="100" value="${progress}"></progress> <span>${status}: ${escape(message)}</span>`;

/** While it runs it listens, and has its bar drawn again at each message; once it has ended it is a bar and no more. */
const audit = (row) => row.status === 'completed' || row.status === 'failed'
  ? `<div id="audit-${row.id}" class="audit">${bar(row)}</div>`
  : `<div id="audit-${row.id}" hx-ext="sse" sse-connect="/api/v1/sse/audits/${row.id}/progress">
       <div class="audit" hx-get="/audits/${row.id}" hx-trigger="sse:message">${bar(row)}</div>
     </div>`;

const escape = (text) => String(text ?? '').replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

const routes = {
  'GET /': async () => page((await db.query('select * from audits where user_id = $1 order by id desc limit 10', [user])).rows),
  'POST /audits': async () => {
    const { rows: [row] } = await db.query("insert into audits (user_id, message) values ($1, 'Waiting...') returning *", [user]);
    void work(row.id);
    return audit(row);
  },
  'GET /audits/:id': async (id, response) => {
    const { rows: [row] } = await db.query('select * from audits where id = $1 and user_id = $2', [id, user]);
    if (!row) return '';
    if (row.status !== 'completed' && row.status !== 'failed') return bar(row);
    response.setHeader('HX-Retarget', `#audit-${id}`); // with what listens, which goes
    response.setHeader('HX-Reswap', 'outerHTML');
    return audit(row);
  },
};

/** The worker: plain SQL, and no word of auditstream. */
async function work(id) {
  for (let progress = 10; progress <= 100; progress += 10) {
    await new Promise((resolve) => { setTimeout(resolve, 300); });
    await db.query('update audits set status = $2, progress = $3, message = $4 where id = $1',
      [id, progress < 100 ? 'running' : 'completed', progress, progress < 100 ? `Page ${progress} of 100` : 'Done']);
  }
}

const file = (name) => readFileSync(new URL(name, import.meta.url));
const files = {
  '/htmx.js': ['text/javascript', file(import.meta.resolve('htmx.org/dist/htmx.min.js'))],
  '/sse.js': ['text/javascript', file(import.meta.resolve('htmx-ext-sse/dist/sse.min.js'))],
  '/page.css': ['text/css', file('page.css')],
};

createServer(async (asked, response) => {
  const { method, url } = asked;
  if (url.startsWith('/api/')) { // as nginx or Caddy would: the page's origin and its cookie are the API's, too
    const { host, ...headers } = asked.headers;
    const upstream = request({ host: '127.0.0.1', port: API_PORT, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    upstream.on('error', () => response.destroy());
    response.on('close', () => upstream.destroy());
    return void upstream.end();
  }
  if (files[url]) {
    response.setHeader('Content-Type', files[url][0]);
    return void response.end(files[url][1]);
  }
  const [, path, id] = /^(\/(?:audits)?)(?:\/(\d+))?$/.exec(url) ?? [];
  const route = routes[`${method} ${path}${id ? '/:id' : ''}`];
  response.setHeader('Content-Type', 'text/html; charset=utf-8');
  response.setHeader('Set-Cookie', `session=${tokenFor(user)}; HttpOnly; SameSite=Strict; Path=/`); // SSE_AUTH_COOKIE is its name
  response.end(route ? await route(id, response) : `Not found: ${escape(url)}`);
}).listen(PORT, '127.0.0.1', () => console.log(`Open http://127.0.0.1:${PORT}/`));
