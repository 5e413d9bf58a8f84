// Slow and failed commands, each a waterfall of its spans.

import { byId, el, empty, fill, tag } from "./dom.js";
import { duration, moment, percent } from "./format.js";

const TOLD = new Set(["trace_id", "parent_id", "why", "name", "time", "duration_ms", "error", "spans"]);

export const idOf = (trace) => `${trace.trace_id}@${trace.time}`;

// Equal ones are one line: with what failed, or which key was slow, how often, and the latest.
export function traces(list) {
  const node = byId("traces");
  const bad = list.filter((trace) => isFailed(trace) || trace.why.includes("slow"));
  const groups = new Map();
  for (const trace of bad.length ? bad : list) {
    const name = isFailed(trace) ? `${trace.name} ${(trace.error || "").split(" ")[0]}`
      : `${trace.name} ${trace.key ?? ""} ${trace.client || trace.client_id || ""}`;
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(trace);
  }
  if (!groups.size) return fill(node, empty("No slow or failed command was traced."));
  const shown = [...groups.values()].slice(0, 25);
  const all = bad.reduce((sum, trace) => sum + trace.duration_ms, 0);
  fill(node, ...shown.map((group) => one(group[0], group, all)));
}

const isFailed = (trace) => Boolean(trace.error) || trace.why.includes("failed");

// The latest of a group, and what is to be said of all of it. `all` is the time of all that are shown.
function one(trace, group, all) {
  const failed = isFailed(trace);
  const took = group.reduce((sum, each) => sum + each.duration_ms, 0);
  const worst = Math.max(...group.map((each) => each.duration_ms));
  const who = trace.client || (trace.client_id ? `client ${trace.client_id}` : null);
  const share = !failed && all ? `${percent(took / all)} % of the time` : null;
  const head = el("summary", {}, el("b", {}, trace.name),
    group.length > 1 ? el("span", { class: "times" }, `${group.length} times`) : null,
    el("span", {}, duration(worst / 1e3)),
    share ? el("span", { class: "dim" }, share) : null,
    trace.key ? el("span", { class: "mono" }, trace.key) : null,
    who ? el("span", { class: "dim" }, who) : null,
    ...trace.why.map((why) => tag(why, { failed: "bad", slow: "warn" }[why] || "")),
    el("span", { class: "dim" }, moment(trace.time * 1000)),
    trace.error ? el("span", { class: "bad" }, trace.error) : null);
  const ends = trace.spans.map((span) => span.offset_ms + span.duration_ms);
  const long = Math.max(trace.duration_ms, ...ends) || 1;
  const spans = trace.spans.map((span, i) => {
    const left = 100 * span.offset_ms / long;
    const kind = failed && i === 0 ? "failed" : span.kind.toLowerCase();
    const bar = el("i", { class: kind, left: `${left}%`, width: `${Math.min(100 - left, 100 * span.duration_ms / long)}%` });
    return el("div", { class: "span" }, el("span", {}, `${span.name} `, el("span", { class: "dim" }, span.kind)),
      el("span", { class: "lane" }, bar), el("span", {}, duration(span.duration_ms / 1e3)));
  });
  const facts = Object.entries(trace)
    .filter(([name, value]) => !TOLD.has(name) && value !== null && value !== false)
    .map(([name, value]) => `${name}=${value}`);
  const id = `${trace.name} ${trace.error || ""} ${trace.key ?? ""} ${who || ""}`;
  return el("details", { class: "trace", "data-id": id }, head, el("div", { class: "spans" }, ...spans,
    el("p", { class: "attributes mono" }, [...facts, `trace=${trace.trace_id}`].join("  "))));
}
