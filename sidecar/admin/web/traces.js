// Slow and failed commands, each a waterfall of its spans.

import { byId, el, empty, fill, tag } from "./dom.js";
import { duration, moment } from "./format.js";

const TOLD = new Set(["trace_id", "parent_id", "why", "name", "time", "duration_ms", "error", "spans"]);

export const idOf = (trace) => `${trace.trace_id}@${trace.time}`;

export function traces(list) {
  const node = byId("traces");
  const bad = list.filter((trace) => trace.why.includes("slow") || trace.why.includes("failed") || trace.error);
  const shown = (bad.length ? bad : list).slice(0, 25);
  if (!shown.length) return fill(node, empty("No slow or failed command was traced."));
  fill(node, ...shown.map(one));
}

function one(trace) {
  const failed = trace.error || trace.why.includes("failed");
  const head = el("summary", {}, el("b", {}, trace.name), el("span", {}, duration(trace.duration_ms / 1e3)),
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
  return el("details", { class: "trace", "data-id": idOf(trace) }, head, el("div", { class: "spans" }, ...spans,
    el("p", { class: "attributes mono" }, [...facts, `trace=${trace.trace_id}`].join("  "))));
}
