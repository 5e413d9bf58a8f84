// ioredis through the sidecar: nothing but the URL is special.
// npm install ioredis && node examples/ioredis.mjs [URL]

import { Redis } from 'ioredis';

const url = process.argv[2] ?? 'redis://localhost:6380';
const client = new Redis(url);

await client.set('greeting', 'hello', 'EX', 60);
console.log('GET greeting:', await client.get('greeting'));

const replies = await client.pipeline().rpush('numbers', 0, 1, 2).lrange('numbers', 0, -1).exec();
console.log('pipeline:', replies.map(([, reply]) => reply));

// Sent in one go: a transaction that goes down the shared connection as one piece.
const results = await client.multi().incr('visits').get('greeting').exec();
console.log('transaction:', results.map(([, reply]) => reply));

// A subscriber, and a client that waits for a queue, get connections of their own on the server.
const subscriber = client.duplicate();
await subscriber.subscribe('news');
const received = new Promise((resolve) => subscriber.on('message', (_, text) => resolve(text)));
await client.publish('news', 'it works');
console.log('message:', await received);

await client.del('greeting', 'numbers', 'visits');
subscriber.disconnect();
await client.quit();
