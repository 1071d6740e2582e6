/** What configures the developer's own auditstream must not configure the tests'. */
const OURS = /^(SSE|JWT|HTTP|TLS|CORS|LOG|REDIS)_|^(ADMIN_ADDR|ACCESS_LOG|AUDITSTREAM_ENV_FILE|AUDITSTREAM_INSTALL|DATABASE_LISTEN_URL)$/;
const LOG = 100; // lines that are kept

/** Starts the program on a free port; resolves once it has an address. Ends with this process, where that ends in order. */
export async function start({ databaseUrl = process.env.DATABASE_URL, install, bin, env, secret, timeout }) {
  if (!databaseUrl) {
    throw new Error('testServer(): no database: give databaseUrl, or set DATABASE_URL, to that of your tests, ' +
      'like postgres://user:password@127.0.0.1:5432/test');
  }
  const { spawn } = await import('node:child_process');
  const program = bin ?? process.env.AUDITSTREAM_BIN ?? 'auditstream';
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !OURS.test(name)));
  const child = spawn(program, ['serve'], {
    env: {
      ...inherited, DATABASE_URL: databaseUrl, AUDITSTREAM_INSTALL: install ?? '', JWT_SECRET: secret,
      HTTP_ADDR: '127.0.0.1:0', ADMIN_ADDR: 'off', LOG_FORMAT: 'json', ...env,
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  const over = new Promise((resolve) => { child.once('close', resolve); child.once('error', resolve); });
  void over.then(() => process.removeListener('exit', kill));
  let ended = false;
  void over.then(() => { ended = true; });

  const lines = [];
  const url = await address(child, lines, program, over, timeout).catch((error) => {
    kill();
    throw error;
  });
  child.unref(); // a test that forgets stop() ends all the same
  child.stderr.unref();
  return {
    url,
    log: () => lines.join('\n'),
    ended: () => ended,
    async stop() {
      child.ref();
      child.stderr.ref();
      child.kill('SIGTERM');
      await over;
    },
  };
}

/** The address is in the log once the program serves. */
function address(child, lines, program, over, timeout) {
  let late;
  return new Promise((resolve, reject) => {
    const fail = (what) => reject(new Error(`${program} ${what}:\n${lines.join('\n')}`));
    late = setTimeout(() => fail(`serve does not serve after ${timeout} ms`), timeout);
    child.once('error', ({ code, message }) => reject(new Error(code === 'ENOENT'
      ? `there is no program ${program}: build auditstream and have it on PATH, or name it with bin or AUDITSTREAM_BIN`
      : `${program} does not start: ${message}`)));
    void over.then(() => fail('serve has ended'));
    let rest = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      const parts = (rest + text).split('\n');
      rest = parts.pop();
      for (const line of parts) {
        lines.push(line);
        if (lines.length > LOG) lines.shift();
        const addr = /^\{.*"msg":"serving","addr":"([^"]+)"/.exec(line)?.[1];
        if (addr) resolve(`http://${addr}`);
      }
    });
  }).finally(() => clearTimeout(late));
}
