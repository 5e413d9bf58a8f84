// The panels below the charts: each shows what the stream has sent.

import { box, byId, el, empty, facts, fill, table, tag } from "./dom.js";
import { bytes, count, duration, moment, percent, span } from "./format.js";
import { shardOf, shards } from "./shards.js";

export function hotKeys(said, topology) {
  const node = byId("keys");
  if (!said.keys.length) return fill(node, empty("No hot keys."));
  const most = Math.max(...said.keys.map((key) => key.share)) || 1;
  const rows = said.keys.map((key) => {
    const bar = el("span", { class: "bar" }, el("i", { width: `${100 * key.share / most}%` }));
    const name = el("td", { class: "key" }, key.key || "(empty)",
      key.db ? tag(`db ${key.db}`) : null,
      key.user !== "default" ? tag(key.user) : null,
      place(key.slot, topology),
      key.cached ? tag("cached", "good") : key.hot ? tag("hot", "warn") : null, bar);
    const writes = key.rate ? Math.round(100 * key.writes / key.rate) : 0;
    return el("tr", {}, name, el("td", { class: "r" }, `${percent(key.share)} %`),
      el("td", { class: "r" }, count(key.rate)), el("td", { class: "r" }, `${writes} %`));
  });
  fill(node, table([["Key", ""], ["Share", "r"], ["per s", "r"], ["writes", "r"]], rows));
}

function place(slot, topology) {
  const number = shardOf(slot, topology?.shards);
  return number === null ? null : tag(`shard ${number}`);
}

export function topology(said) {
  if (said.shards) return fill(byId("topology"), ...shards(said.shards));
  const children = [];
  const state = said.up ? "good" : "bad";
  children.push(box(said.master || "no master known", said.follows_sentinels ? "master" : "server",
    said.up ? (said.phase && said.phase !== "serving" ? said.phase : "connected") : "not connected", state));
  for (const replica of said.replicas || []) {
    const lag = replica.lag_bytes ? ` · ${bytes(replica.lag_bytes)} behind` : "";
    children.push(box(replica.address, "replica", replica.state + lag,
      replica.state === "online" ? "good" : "warn", "below"));
  }
  if (said.sentinels?.length) {
    const up = said.sentinels.filter((one) => one.connected).length;
    children.push(el("p", { class: "group" }, `Sentinels of ${said.service}: ${up} of ${said.sentinels.length} connected, quorum ${said.quorum ?? "?"}, epoch ${said.epoch ?? "?"}`));
    for (const one of said.sentinels) {
      children.push(box(one.address, "", one.connected ? "connected" : one.error || "not connected",
        one.connected ? "good" : "bad"));
    }
  }
  fill(byId("topology"), ...children);
}

export function timeline(history, now) {
  const node = byId("timeline");
  if (!history.length) return fill(node, empty("No interruption since the sidecar started."));
  const first = Math.min(...history.map((one) => one.at * 1000));
  const long = Math.max(5 * 60e3, Math.min(24 * 3600e3, (now - first) * 1.08));
  const track = el("div", { class: "track", role: "img", "aria-label": `${history.length} interruptions` });
  for (const one of history) {
    const left = 100 * (1 - (now - one.at * 1000) / long);
    if (left < 0) continue;
    const open = one.seconds === null;
    const wide = 100 * (open ? now - one.at * 1000 : one.seconds * 1000) / long;
    track.append(el("i", { class: open ? "open" : one.switched ? "switch" : "", left: `${Math.min(99.4, left)}%`, width: `${wide}%` }));
  }
  const list = el("ul", { class: "history" }, ...history.slice(0, 50).map((one) => el("li", {},
    el("b", {}, moment(one.at * 1000)), " ", one.shard === null ? null : `shard ${one.shard}: `,
    one.switched
      ? el("span", {}, el("span", { class: "mono" }, one.before), " → ", el("span", { class: "mono" }, one.after))
      : el("span", {}, "no connection to ", el("span", { class: "mono" }, one.before)),
    one.seconds === null ? tag("ongoing", "bad")
      : tag(`${one.switched ? "switched, " : ""}${duration(one.seconds)}`, one.switched ? "good" : "warn"))));
  fill(node, track, el("div", { class: "ends" }, el("span", {}, `${span(long / 1000)} ago`), el("span", {}, "now")), list);
}

export function cache(said, point) {
  const node = byId("cache");
  const it = said.cache;
  if (it.mode === "off") return fill(node, empty("cache.mode is off."));
  const share = it.limit_bytes ? it.bytes / it.limit_bytes : 0;
  const misses = Object.entries(it.misses).filter(([, number]) => number).sort((a, b) => b[1] - a[1]);
  const reads = it.hits + misses.reduce((sum, [, number]) => sum + number, 0);
  fill(node,
    facts([
      ["Mode", it.mode],
      ["Memory", `${bytes(it.bytes)} of ${bytes(it.limit_bytes)}`],
    ]),
    el("span", { class: "bar", "data-state": share > 0.95 ? "warn" : "" }, el("i", { width: `${100 * share}%` })),
    el("p", { class: "group" }, "Since the start"),
    facts([
      ["Entries", count(it.entries)],
      ["Hits", `${count(it.hits)}${reads ? ` (${percent(it.hits / reads)} %)` : ""}`],
      ...misses.slice(0, 4).map(([why, number]) => [`Misses: ${why}`, count(number)]),
      ["Evictions", count(it.evictions)],
      ["Proof of freshness", it.proof_age_s === null ? "none" : `${duration(it.proof_age_s)} old`],
    ]));
}

export function links(said, health) {
  const server = health?.server;
  const breaker = said.breaker;
  fill(byId("links"), said.cluster ? el("p", { class: "group" }, "Server, role, memory and replicas are those of one shard") : null, facts([
    ["Server", server?.version ? `${server.software} ${server.version}` : server?.error || "–"],
    ["Role", health?.role],
    ["Memory", server?.used_memory ? `${bytes(server.used_memory)}${server.maxmemory ? ` of ${bytes(server.maxmemory)}` : ""}` : null],
    ["Replicas", health ? String(health.replication.replicas) : null],
    ["Replication lag", health?.replication.replicas ? `${bytes(health.replication.lag_bytes)}, ${health.replication.lag_s ?? "?"} s` : null],
    ["Links", `${said.links.shared} shared, ${said.links.dedicated} dedicated, ${said.links.idle} idle`],
    ["Reconnects", count(said.totals.reconnects)],
    ["Breaker", breaker.opened ? `${breaker.state}, opened ${breaker.opened} times` : breaker.state],
    ["All commands held", said.held.reason ? `${said.held.reason}${said.held.refused ? ": they get errors by now" : ""}` : null],
    ["Held requests", said.held.clients ? `${said.held.clients} clients, ${bytes(said.held.bytes)}` : "none"],
    ["Uncertain writes", count(said.totals.uncertain)],
    ["Refused by policy or limit", said.totals.refused ? count(said.totals.refused) : null],
  ]));
}

// Hidden where a single process does it all.
export function workers(list) {
  byId("workers-card").hidden = !list;
  if (!list) return;
  const up = list.filter((one) => one.state === "up").length;
  const states = { up: "good", silent: "bad", starting: "warn" };
  fill(byId("workers"), el("p", { class: "group" }, `${up} of ${list.length} serve clients`), ...list.map((one) => {
    const words = [one.pid ? `process ${one.pid}` : null, `since ${moment(one.since * 1000)}`,
      one.restarts ? `started again ${count(one.restarts)} ${one.restarts === 1 ? "time" : "times"}` : null];
    return el("div", { class: "node", "data-state": states[one.state] },
      el("span", {}, `Worker ${one.number}`, el("br"),
        el("span", { class: "dim" }, words.filter(Boolean).join(", ")),
        one.why ? el("br") : null, one.why ? el("span", { class: "dim" }, one.why) : null),
      tag({ up: "up", silent: "does not answer", starting: "not running" }[one.state], states[one.state]));
  }));
}

export function warm(said) {
  const node = byId("warm");
  if (!said || !said.state) return fill(node, empty("Warm start is not configured."));
  const share = said.total ? (said.loaded + said.failed) / said.total : said.state === "done" ? 1 : 0;
  const sources = Object.entries(said.sources || {}).map(([name, number]) => `${name} ${count(number)}`);
  fill(node,
    facts([
      ["State", said.state],
      ["Loaded", `${count(said.loaded)} of ${count(said.total)}`],
      ["Failed", said.failed ? count(said.failed) : null],
      ["Duration", said.duration ? duration(said.duration) : null],
      ["Sources", sources.length ? sources.join(", ") : null],
    ]),
    el("span", { class: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.round(100 * share)), "aria-label": "Warm start" },
      el("i", { width: `${100 * share}%` })));
}

export function certificates(list) {
  const node = byId("certificates");
  if (!list.length) return fill(node, empty("TLS is not configured."));
  fill(node, ...list.map((one) => {
    const left = one.seconds_left;
    const state = one.error || left < 0 ? "bad" : left < Math.min(14 * 86400, (one.not_after - one.not_before) / 3) ? "warn" : "good";
    const words = one.error || (left === null ? "no end" : left < 0 ? "expired" : `${span(left)} left`);
    return el("div", { class: "node", "data-state": state },
      el("span", {}, el("span", { class: "mono" }, one.use.replace(/_file$/, "")), el("br"), el("span", { class: "dim" }, one.subject || one.file)),
      tag(words, state));
  }));
}

export function audit(lines) {
  const node = byId("audit");
  if (!lines.length) return fill(node, empty("Nothing yet."));
  const rows = lines.slice(0, 100).map((line) => {
    const rest = Object.entries(line).filter(([name]) => !["audit", "time", "event"].includes(name));
    return el("tr", {}, el("td", { class: "when" }, moment(Date.parse(line.time))), el("td", {}, el("b", {}, line.event)),
      el("td", { class: "key" }, rest.map(([name, value]) => `${name}=${value}`).join("  ")));
  });
  fill(node, table([["When", ""], ["What", ""], ["", ""]], rows));
}
