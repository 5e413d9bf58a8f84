// The load's clients as ioredis makes them: one writer, reader or counter each, until SIGTERM. What is
// recorded, and how, stands in load.py.
import fs from "node:fs";
import Redis from "ioredis";

const spec = JSON.parse(process.argv[2]);
const records = [];
const connects = [];
const now = () => Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC, as Python's
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const MISSING = -1;
const GARBLED = -2;
const READER_KEYS = 4;
let stopping = false;

function kind(error) {
  const code = String(error.message).split(" ")[0];
  if (/^[A-Z]+$/.test(code)) return code;
  return { ECONNREFUSED: "refused", ECONNRESET: "closed", EPIPE: "closed" }[error.code] ?? "connection";
}

function decode(key, value) {
  if (value === null) return MISSING;
  const at = value.lastIndexOf("=");
  return value.slice(0, at) === key ? Number(value.slice(at + 1)) : GARBLED;
}

class Client {
  constructor(number) {
    this.number = number;
    this.numbers = {};
    this.redis = new Redis({ host: spec.host, port: spec.port, username: spec.username ?? undefined,
      password: spec.password ?? undefined });
    let up = false;
    this.redis.on("connect", () => { up = true; connects.push([number, now(), ""]); });
    this.redis.on("close", () => { up = false; });
    this.redis.on("error", (error) => { // of a connection that is up, it is about its end
      if (!up) connects.push([number, now(), kind(error)]);
    });
    this.served = new Promise((done) => { this.first = done; });
  }

  async ask(op, key, number) {
    let value = MISSING;
    let error = "";
    const sent = now();
    try {
      if (op === "set") {
        await this.redis.set(key, `${key}=${number}`);
        value = number;
      } else {
        const got = await this.redis[op](key);
        value = op === "incr" ? Number(got) : decode(key, got);
      }
      this.first();
    } catch (failure) {
      error = kind(failure);
    }
    records.push([this.number, op, key, number, sent, now(), error, value]);
  }

  step(role, turn) {
    if (role === "writer") return this.ask("set", `drill:w:${this.number}:${turn}`, turn);
    if (role === "counter") {
      return this.ask("incr", turn % 2 ? "drill:count:all" : `drill:count:${this.number}`, 0);
    }
    const key = `drill:r:${this.number}:${turn % READER_KEYS}`;
    if (Math.random() >= 0.2) return this.ask("get", key, 0);
    this.numbers[key] = (this.numbers[key] ?? -1) + 1;
    return this.ask("set", key, this.numbers[key]);
  }

  async run(role) {
    for (let turn = 0; !stopping; turn++) {
      await this.step(role, turn);
      await sleep(spec.think * (0.5 + Math.random()));
    }
    this.redis.disconnect();
  }
}

process.on("SIGTERM", () => { stopping = true; });
const { writers, readers, counters } = spec.crowd;
const roles = [
  ...Array(writers).fill("writer"), ...Array(readers).fill("reader"), ...Array(counters).fill("counter"),
];
const clients = roles.map((_, at) => new Client(spec.first + at));
const runs = roles.map((role, at) => clients[at].run(role));
Promise.all(clients.map((client) => client.served)).then(() => fs.writeFileSync(`${spec.out}.ready`, ""));
await Promise.all(runs);
fs.writeFileSync(`${spec.out}.connects`, JSON.stringify(connects));
fs.writeFileSync(`${spec.out}.partial`, JSON.stringify(records));
fs.renameSync(`${spec.out}.partial`, spec.out);
process.exit(0);
