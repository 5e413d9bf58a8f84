// node-redis through the sidecar: nothing but the URL is special.
// npm install redis && node examples/node-redis.mjs [URL]

import { createClient } from 'redis';

const url = process.argv[2] ?? 'redis://localhost:6380';
const client = await createClient({ url }).connect();

await client.set('greeting', 'hello', { EX: 60 });
console.log('GET greeting:', await client.get('greeting'));

// Sent in one go: a transaction that goes down the shared connection as one piece.
console.log('transaction:', await client.multi().incr('visits').get('greeting').exec());

const subscriber = await client.duplicate().connect();
const received = new Promise((resolve) => {
  subscriber.subscribe('news', resolve).then(() => client.publish('news', 'it works'));
});
console.log('message:', await received);

await client.del(['greeting', 'visits']);
subscriber.destroy();
await client.close();
