// The example of docs/tracing.md: node tracing.mjs PORT TRACEPARENT
import assert from "node:assert/strict";
import { Redis } from "ioredis";

const [port, traceparent] = process.argv.slice(2);
const redis = new Redis({ port: Number(port), host: "127.0.0.1" });

async function inTrace(redis, fill) {
  const pipeline = redis.pipeline();
  pipeline.client("SETNAME", `tp:${traceparent}`);
  fill(pipeline);
  pipeline.client("SETNAME", "app");
  return (await pipeline.exec()).slice(1, -1);
}

await redis.set("tr:before", 1);
const replies = await inTrace(redis, (pipeline) => pipeline.set("tr:in", 1).get("tr:in"));
assert.deepEqual(replies, [[null, "OK"], [null, "1"]]);
await redis.lpop("tr:after");
assert.equal(await redis.client("GETNAME"), "app");
redis.disconnect();
