// Follows one audit with a public client until it has ended: node public.mjs CLIENT URL, with the token in TOKEN. Each event
// is a line of output. What is special here is the recipe of the README.
import { createRequire } from 'node:module';
import { watchAudit, AuthEventSource } from '../client.js';

const [client, url] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${process.env.TOKEN}` };
const show = (data) => console.log(data);
const ended = (data) => ['completed', 'failed'].includes(JSON.parse(data).status);

/** Follows with something like EventSource. */
const follow = (source) => {
  source.onmessage = ({ data }) => {
    show(data);
    if (ended(data)) source.close();
  };
};

const clients = {
  async watchAudit() {
    const { origin, pathname } = new URL(url);
    await watchAudit(pathname.split('/').at(-2), {
      base: origin, token: process.env.TOKEN, onProgress: (progress, { data }) => show(data),
    });
  },

  async AuthEventSource() {
    follow(new AuthEventSource(url, { headers }));
  },

  async eventsource() {
    const { EventSource } = await import('eventsource');
    follow(new EventSource(url, {
      fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
    }));
  },

  async 'event-source-polyfill'() {
    const { EventSourcePolyfill } = createRequire(import.meta.url)('event-source-polyfill');
    follow(new EventSourcePolyfill(url, { headers, heartbeatTimeout: 90_000 }));
  },

  async '@microsoft/fetch-event-source'() {
    // It expects a window.
    globalThis.window = globalThis;
    globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
    const { fetchEventSource } = createRequire(import.meta.url)('@microsoft/fetch-event-source');
    let done = false;
    await fetchEventSource(url, {
      headers,
      onopen: async ({ status }) => { // whatever is thrown here is tried again for ever, unless onerror throws it on
        if (status !== 200) throw Object.assign(new Error(`status ${status}`), { final: [204, 400, 401, 403, 404].includes(status) });
      },
      onmessage: ({ data }) => {
        if (!data) return; // retry: alone is a message to it
        show(data);
        done = ended(data);
      },
      onclose: () => { if (!done) throw new Error('come back'); }, // a clean end is for good to it otherwise
      onerror: (error) => { if (error.final) throw error; },
    });
  },

  async 'eventsource-client'() {
    const { createEventSource } = await import('eventsource-client');
    const source = createEventSource({ url, headers });
    for await (const { data } of source) {
      show(data);
      if (ended(data)) break;
    }
    source.close();
  },
};

await clients[client]();
