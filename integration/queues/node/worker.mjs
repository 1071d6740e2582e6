// A real pg-boss or graphile-worker for auditstream's tests: node worker.mjs pg-boss|graphile-worker. What happens is said line by line on standard
// input, and each line is answered when it has happened; see workers/main.go.
import readline from 'node:readline'

const connectionString = process.env.DATABASE_URL

// The job that runs does what it is told until it is told to end.
let told
const orders = []
const nextOrder = () => new Promise(resolve => { orders.length ? resolve(orders.shift()) : (told = resolve) })
const tell = (command, argument) => new Promise((done, failed) => {
  const order = { command, argument, done, failed }
  if (told) { told(order); told = undefined } else orders.push(order)
})

async function job(report) {
  for (;;) {
    const o = await nextOrder()
    if (o.command === 'progress') await report(Number(o.argument)).then(o.done, o.failed)
    else {
      o.done()
      if (o.command === 'fail') throw new Error('the disk is full')
      return o.argument ? { rows: Number(o.argument) } : undefined
    }
  }
}

async function pgBoss() {
  const { default: PgBoss } = await import('pg-boss')
  const boss = new PgBoss({ connectionString, supervise: false, schedule: false })
  boss.on('error', error => { throw error })
  await boss.start()
  await boss.createQueue('export')
  const work = ([{ id }]) => job(progress => boss.getDb().executeSql('update pgboss.job set output = $1 where id = $2', [JSON.stringify({ progress }), id]))
  return {
    insert: (user, retries) => boss.send('export', { user_id: user }, { retryLimit: Number(retries), retryDelay: 3600 }),
    work: () => boss.work('export', { pollingIntervalSeconds: 0.5 }, work),
    rest: () => boss.offWork('export'),
    cancel: id => boss.cancel('export', id),
    retry: id => boss.getDb().executeSql('update pgboss.job set start_after = now() where id = $1', [id]), // it is late else
    delete: id => boss.deleteJob('export', id),
  }
}

async function graphileWorker() {
  const { run, makeWorkerUtils, Logger } = await import('graphile-worker')
  const logger = new Logger(() => () => {})
  const utils = await makeWorkerUtils({ connectionString, logger })
  await utils.migrate()
  let runner
  const report = helpers => progress =>
    helpers.query('update graphile_worker._private_jobs set payload = payload::jsonb || $1 where id = $2', [JSON.stringify({ progress }), helpers.job.id])
  return {
    insert: async (user, retries) => (await utils.addJob('export', { user_id: user }, { maxAttempts: Number(retries) + 1 })).id,
    work: async () => { runner = await run({ connectionString, logger, noHandleSignals: true, pollInterval: 100, taskList: { export: (_, helpers) => job(report(helpers)) } }) },
    rest: () => runner.stop(),
    cancel: id => utils.permanentlyFailJobs([id], 'cancelled'),
    retry: id => utils.rescheduleJobs([id], { runAt: new Date() }),
    delete: id => utils.completeJobs([id]),
  }
}

const queue = await { 'pg-boss': pgBoss, 'graphile-worker': graphileWorker }[process.argv[2]]()
console.log('ready')
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [command, argument] = line.split(/ (.*)/, 2)
  const answer = await (queue[command] ? queue[command](...(argument ?? '').split(' ')) : tell(command, argument))
  console.log('ok ' + (command === 'insert' ? answer : ''))
}
process.exit(0)
