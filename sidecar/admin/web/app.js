// The page: keeps what the stream sends, and shows it.

import { Chart, binary } from "./chart.js";
import { byId, el, text } from "./dom.js";
import { bytes, clock, count, duration, percent, split } from "./format.js";
import * as panels from "./panels.js";
import { Series } from "./series.js";
import { cluster } from "./shards.js";
import { Stream } from "./stream.js";
import { idOf, traces } from "./traces.js";

const series = new Series();
const known = { instance: null, stats: null, health: null, topology: null, traces: [], audit: [] };
let shown = Number(localStorage.getItem("window")) || 300;
let lostAt = 0;

const reads = (point) => point.hits + point.misses;
const charts = [
  new Chart(byId("c-throughput"), "Throughput", [
    { name: "commands/s", colour: "c1", fill: true, value: (p) => p.commands },
    { name: "from cache/s", colour: "c2", value: (p) => p.hits },
    { name: "errors/s", colour: "c4", value: (p) => p.errors },
  ], count, { floor: 10 }),
  new Chart(byId("c-latency"), "Latency", [
    { name: "p50", colour: "c1", value: (p) => p.p50 },
    { name: "p95", colour: "c3", value: (p) => p.p95 },
    { name: "p99", colour: "c4", value: (p) => p.p99 },
  ], duration, { log: true, floor: 1e-4, ticks: (value) => duration(value).replace(/\.0+(?= )/, "") }),
  new Chart(byId("c-ratio"), "Cache hit ratio", [
    { name: "hits", colour: "c2", fill: true, value: (p) => (reads(p) ? p.hits / reads(p) : null) },
  ], (value) => `${percent(value)} %`, { ceiling: 1, ticks: (value) => `${100 * value} %` }),
  new Chart(byId("c-memory"), "Cache memory", [
    { name: "bytes", colour: "c3", fill: true, value: (p) => p.cache_bytes },
  ], bytes, { floor: 65536, step: binary, ticks: (value) => bytes(value).replace(".0 ", " ") }),
];

const hear = {
  hello(said) {
    if (known.instance && known.instance !== said.instance) {
      series.mark(said.started * 1000, "restart", "restarted");
      notice(`The sidecar restarted at ${clock(said.started * 1000)}: totals count from then.`);
      known.traces = [];
      known.audit = [];
    } else if (known.instance && lostAt) {
      notice("");
    }
    known.instance = said.instance;
    document.documentElement.dataset.instance = said.instance;
    text("version", said.version);
    text("name", said.name);
    series.add(said.points);
  },
  stats(said) {
    known.stats = said;
    series.add([said.point]);
    draw();
  },
  health(said) {
    known.health = said;
    const pill = byId("health");
    pill.dataset.state = said.status;
    text("health", said.status);
    const reasons = byId("reasons");
    reasons.hidden = !said.reasons.length;
    reasons.dataset.state = said.status;
    reasons.replaceChildren(...said.reasons.map((reason) => el("li", {}, reason)));
    document.title = `${said.status === "ok" ? "" : `${said.status}: `}redis-sidecar`;
  },
  topology(said) {
    known.topology = said;
    text("upstream", said.upstream || "–");
    for (const one of said.history) if (one.switched) series.mark(one.at * 1000, "switch", "switched");
    panels.topology(said);
    panels.timeline(said.history, Date.now());
  },
  hotkeys(said) {
    panels.hotKeys(said, known.topology);
  },
  certificates: panels.certificates,
  warm: panels.warm,
  breaker(said) {
    if (known.stats) known.stats.breaker.state = said.state;
    draw();
  },
  traces(list) {
    const ids = new Set(list.map(idOf));
    known.traces = [...list, ...known.traces.filter((trace) => !ids.has(idOf(trace)))].slice(0, 100);
    known.traces.sort((a, b) => b.time - a.time);
    traces(known.traces);
  },
  audit(lines) {
    // Lines have no number: equal lines are the same line.
    const have = new Set(lines.map((line) => JSON.stringify(line)));
    known.audit = [...lines, ...known.audit.filter((line) => !have.has(JSON.stringify(line)))].slice(0, 200);
    panels.audit(known.audit);
  },
  bye() {
    state("ended");
  },
};

function draw() {
  const said = known.stats;
  const point = series.latest;
  if (!said) return;
  for (const chart of charts) chart.show(series, shown);
  text("n-commands", count(point?.commands));
  const [number, unit] = split(point?.p99);
  text("n-p99", number);
  text("u-p99", unit);
  const due = said.unanswered;
  const [age, ageUnit] = due && due.oldest >= 0.001 ? split(due.oldest) : ["–", ""];
  text("n-oldest", age);
  text("u-oldest", ageUnit);
  grade("n-oldest", { late: "warn", overdue: "bad" }[due?.state] || "");
  text("n-hits", point && reads(point) ? percent(point.hits / reads(point)) : "–");
  text("n-errors", count(point?.errors));
  text("n-clients", count(said.clients));
  text("n-held", count(said.held.clients));
  text("u-held", pauseWord(said.held) || (said.held.bytes ? bytes(said.held.bytes) : ""));
  text("n-breaker", said.breaker.state);
  grade("n-errors", point?.errors > 0 ? "warn" : "");
  grade("n-held", said.held.refused ? "bad" : said.held.clients || said.held.reason ? "warn" : "");
  grade("n-breaker", { open: "bad", "half-open": "warn" }[said.breaker.state] || "");
  panels.cache(said, point);
  panels.links(said, known.health);
  panels.workers(said.workers);
  cluster(said.cluster, point);
  panels.warm(said.warm);
}

// Whether all commands are held, in one word.
function pauseWord(held) {
  if (!held.reason) return "";
  if (held.refused) return "refused";
  return held.reason.includes("pause") ? "paused" : "switching";
}

function grade(id, state) {
  byId(id).closest(".number").dataset.state = state;
}

function notice(words) {
  byId("notice").hidden = !words;
  text("notice", words);
}

// The page is up to date only while the stream is live; it says so, or since when it is not.
function state(now) {
  const live = byId("live");
  document.documentElement.toggleAttribute("data-old", now !== "live");
  if (now === "live") {
    live.dataset.state = "live";
    text("live", "live");
    if (lostAt && byId("notice").dataset.kind === "lost") notice("");
    byId("notice").dataset.kind = "";
    return;
  }
  if (now === "denied") return ask();
  if (live.dataset.state !== "ended" || now === "ended") live.dataset.state = now;
  if (!lostAt || now === "ended" || byId("notice").dataset.kind !== "lost") {
    lostAt = Date.now();
    byId("notice").dataset.kind = "lost";
    const why = now === "ended" ? "The sidecar has ended" : "No connection to the sidecar";
    notice(`${why}. The page shows the state of ${clock(lostAt)}; reconnecting.`);
    const pill = byId("health");
    pill.dataset.state = "unknown";
    text("health", "unknown");
  }
  text("live", "reconnecting");
}

function ask() {
  const dialog = byId("ask");
  text("ask-error", stream.token ? "Wrong token." : "");
  if (!dialog.open) dialog.showModal();
  byId("token").focus();
}

function answer() {
  stream.use(byId("token").value.trim());
  byId("token").value = "";
  byId("ask").close();
  stream.run();
}

function theme(next) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const order = dark ? ["", "light", "dark"] : ["", "dark", "light"];
  let chosen = localStorage.getItem("theme") || "";
  if (next) chosen = order[(order.indexOf(chosen) + 1) % 3];
  localStorage.setItem("theme", chosen);
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  byId("theme").setAttribute("aria-label", `Colours: ${chosen || "as the system"}`);
  byId("theme").title = `Colours: ${chosen || "as the system"}`;
  draw();
}

function choose(seconds) {
  shown = seconds;
  localStorage.setItem("window", String(seconds));
  for (const button of document.querySelectorAll("[data-window]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.window) === shown));
  }
  draw();
}

const stream = new Stream((event, data) => hear[event]?.(data), state);

for (const button of document.querySelectorAll("[data-window]")) {
  button.addEventListener("click", () => choose(Number(button.dataset.window)));
}
byId("theme").addEventListener("click", () => theme(true));
byId("ask-form").addEventListener("submit", (event) => { event.preventDefault(); answer(); });
byId("ask").addEventListener("cancel", (event) => event.preventDefault());
document.addEventListener("visibilitychange", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

theme(false);
choose([60, 300, 900].includes(shown) ? shown : 300);
traces([]);
panels.audit([]);
stream.run();
