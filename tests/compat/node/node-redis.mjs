// node-redis through the sidecar: node node-redis.mjs PORT PROTOCOL
import assert from "node:assert/strict";
import { createClient, WatchError } from "redis";

const port = Number(process.argv[2]);
const RESP = Number(process.argv[3]);
const open = async (more = {}) => {
  const client = createClient({ RESP, socket: { host: "127.0.0.1", port }, ...more });
  client.on("error", (error) => {
    throw error;
  });
  return client.connect();
};
const client = await open();
const other = await open({ database: 2, name: "other" });

// Values and errors; everything in one tick goes out in one write.
assert.equal(await client.set("k", "v"), "OK");
assert.equal(await client.get("k"), "v");
await assert.rejects(client.lPush("k", "1"), /WRONGTYPE/);
await assert.rejects(client.sendCommand(["NOSUCH"]), /unknown command/);
await Promise.all([...Array(500).keys()].map(() => client.incr("n")));
assert.equal(await client.get("n"), "500");
await client.hSet("h", { f: "v", g: "w" });
assert.deepEqual({ ...(await client.hGetAll("h")) }, { f: "v", g: "w" });
await client.zAdd("z", { score: 1.5, value: "m" });
assert.equal(await client.zScore("z", "m"), 1.5);

// Transactions and WATCH.
assert.deepEqual(await client.multi().set("b", "1").incr("b").exec(), ["OK", 2]);
const watcher = await open();
await watcher.watch("b");
await client.set("b", "9");
await assert.rejects(watcher.multi().set("b", "1").exec(), WatchError);
assert.equal(await other.get("b"), null);
assert.equal(await other.clientGetName(), "other");

// Publish/subscribe.
const subscriber = await open();
const messages = [];
let finish;
const done = new Promise((resolve) => (finish = resolve));
await subscriber.subscribe("c", (text) => {
  messages.push(text);
  if (text === "99") finish();
});
await subscriber.pSubscribe("c*", (text) => messages.push(text));
for (let n = 0; n < 100; n++) await client.publish("c", String(n));
await done;
await subscriber.unsubscribe("c");
await subscriber.pUnsubscribe("c*");
assert.ok(messages.length >= 199, `${messages.length} messages`);

// Blocking, scripts, scanning.
const blocked = await open();
const popped = blocked.blPop("q", 5);
await client.rPush("q", "x");
assert.equal((await popped).element, "x");
assert.deepEqual(await client.eval("return {KEYS[1], 1}", { keys: ["a"] }), ["a", 1]);
const keys = [];
for await (const batch of client.scanIterator({ COUNT: 2 })) keys.push(...batch);
assert.deepEqual(keys.sort(), ["b", "h", "k", "n", "z"]);

await Promise.all([client, other, watcher, subscriber, blocked].map((one) => one.close()));
console.log("ok");
