// Slow and failed commands, each a waterfall of its spans.

import { byId, el, empty, fill, tag } from "./dom.js";
import { duration, moment } from "./format.js";

export function traces(list) {
  const node = byId("traces");
  const shown = list.filter((trace) => trace.why !== "sampled" || trace.error).slice(0, 25);
  const all = shown.length ? shown : list.slice(0, 25);
  if (!all.length) return fill(node, empty("No slow or failed command was traced."));
  fill(node, ...all.map(one));
}

function one(trace) {
  const head = el("summary", {}, el("b", {}, trace.name), el("span", {}, duration(trace.seconds)),
    tag(trace.why, trace.why === "failed" ? "bad" : trace.why === "slow" ? "warn" : ""),
    el("span", { class: "dim" }, moment(trace.at * 1000)),
    trace.error ? el("span", { class: "bad" }, trace.error) : null);
  const long = Math.max(trace.seconds, ...trace.spans.map((span) => span.start + span.seconds)) || 1;
  const spans = trace.spans.map((span) => {
    const left = 100 * span.start / long;
    const bar = el("i", { class: span.error ? "failed" : span.kind, left: `${left}%`, width: `${Math.min(100 - left, 100 * span.seconds / long)}%` });
    const attributes = Object.entries(span.attributes || {}).map(([name, value]) => `${name}=${value}`);
    if (span.error) attributes.unshift(span.error);
    return el("div", { class: "span" }, el("span", {}, `${span.name} `, el("span", { class: "dim" }, span.kind)),
      el("span", { class: "lane" }, bar), el("span", {}, duration(span.seconds)),
      attributes.length ? el("span", { class: "attributes mono" }, attributes.join("  ")) : null);
  });
  const id = el("p", { class: "dim mono" }, trace.id);
  return el("details", { class: "trace", "data-id": trace.id }, head, el("div", { class: "spans" }, ...spans, id));
}
