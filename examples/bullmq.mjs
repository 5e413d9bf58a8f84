// A queue of BullMQ through the sidecar: nothing but the URL is special.
// npm install bullmq ioredis && node examples/bullmq.mjs [URL]
//
// A worker waits in BZPOPMIN, and its scripts move jobs: the sidecar passes both on as they are.

import { Queue, QueueEvents, Worker } from 'bullmq';
import { Redis } from 'ioredis';

const url = process.argv[2] ?? 'redis://localhost:6380';
const connect = () => new Redis(url, { maxRetriesPerRequest: null });

const queue = new Queue('orders', { connection: connect() });
const events = new QueueEvents('orders', { connection: connect() });
await events.waitUntilReady();

const worker = new Worker(
  'orders',
  async (job) => {
    if (job.data.amount === 3 && job.attemptsMade === 0) throw new Error('try again');
    return job.data.amount * 2;
  },
  { connection: connect(), concurrency: 4 },
);

const options = { attempts: 2, backoff: { type: 'fixed', delay: 50 } };
const jobs = await queue.addBulk(
  [1, 2, 3].map((amount) => ({ name: 'charge', data: { amount }, opts: options })),
);
const later = await queue.add('remind', { amount: 10 }, { delay: 100 });

const done = await Promise.all([...jobs, later].map((job) => job.waitUntilFinished(events, 20000)));
console.log('results:', done);
const counts = await queue.getJobCounts('completed', 'failed');
console.log('completed:', counts.completed, 'failed:', counts.failed);

await worker.close();
await events.close();
await queue.obliterate({ force: true });
await queue.close();
process.exit(0); // the connections are the example's own: they would keep it alive
