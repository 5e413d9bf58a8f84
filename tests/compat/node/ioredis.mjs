// ioredis through the sidecar: node ioredis.mjs PORT
import assert from "node:assert/strict";
import { Redis } from "ioredis";

const port = Number(process.argv[2]);
const open = (more = {}) => new Redis({ port, host: "127.0.0.1", ...more });
const client = open();
const other = open({ db: 2, connectionName: "other" });

// Values, errors, automatic pipelining.
assert.equal(await client.set("k", "v"), "OK");
assert.equal(await client.get("k"), "v");
assert.deepEqual((await client.getBuffer("k")).toString(), "v");
await assert.rejects(client.lpush("k", 1), /WRONGTYPE/);
await assert.rejects(client.call("NOSUCH"), /unknown command/);
const auto = open({ enableAutoPipelining: true });
const got = await Promise.all([...Array(500).keys()].map((n) => auto.incrby("n", 1).then(() => n)));
assert.equal(got.length, 500);
assert.equal(await client.get("n"), "500");

// Pipelines and transactions.
const results = await client.pipeline().set("a", 1).incr("a").lpush("a", 1).get("a").exec();
assert.deepEqual(results.map(([error, value]) => (error ? "error" : value)), ["OK", 2, "error", "2"]);
assert.deepEqual(await client.multi().set("b", 1).incr("b").exec(), [[null, "OK"], [null, 2]]);
await client.watch("b");
await other.select(0);
await other.set("b", 9);
assert.equal(await client.multi().set("b", 1).exec(), null);
await other.select(2);
assert.equal(await other.get("b"), null);
assert.equal(await other.client("GETNAME"), "other");

// Publish/subscribe.
const subscriber = open();
const messages = [];
const done = new Promise((resolve) => {
  subscriber.on("message", (channel, text) => {
    messages.push(`${channel}:${text}`);
    if (text === "99") resolve();
  });
});
await subscriber.subscribe("c");
for (let n = 0; n < 100; n++) await client.publish("c", n);
await done;
assert.equal(messages.length, 100);

// Blocking, scripts, scanning, binary.
const blocked = open();
const popped = blocked.blpop("q", 5);
await client.rpush("q", "x");
assert.deepEqual(await popped, ["q", "x"]);
client.defineCommand("double", { numberOfKeys: 1, lua: "return redis.call('GET', KEYS[1]) * 2" });
assert.equal(await client.double("n"), 1000);
assert.equal(await client.double("n"), 1000);
const keys = new Set();
for await (const batch of client.scanStream({ count: 2 })) batch.forEach((key) => keys.add(key));
assert.deepEqual([...keys].sort(), ["a", "b", "k", "n"]);
const blob = Buffer.from([...Array(256).keys()]);
await client.set("blob", blob);
assert.deepEqual(await client.getBuffer("blob"), blob);

await Promise.all([client, other, auto, subscriber, blocked].map((one) => one.quit()));
console.log("ok");
