// The shards of a cluster: who serves them, which slots they have, and how they are.

import { box, byId, el, facts, fill, tag } from "./dom.js";
import { count, duration, percent } from "./format.js";

const SLOTS = 16384;
const GRADES = { up: "good", idle: "", connecting: "warn", late: "warn", overdue: "bad", lost: "bad" };
const RANGES = 6; // in words; the picture has all of them
const PARTS = 2000; // of the picture

// What is wrong comes first.
const ORDER = ["lost", "overdue", "late", "connecting", "up", "idle"];

export function shards(list) {
  const shown = [...list].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.number - b.number);
  const having = list.filter((one) => one.slots).length;
  return [picture(list), el("div", { class: "scroll shards", tabindex: "0", role: "region", "aria-label": "Shards" },
    ...shown.flatMap((one) => shard(one, having)))];
}

function shard(one, having) {
  const state = GRADES[one.state];
  const words = [
    `${count(one.slots)} slots (${percent(one.slots / SLOTS)} %)${unlike(one, having)}`,
    one.held_clients ? `${count(one.held_clients)} ${one.held_clients === 1 ? "client waits" : "clients wait"}` : null,
    one.replies_due ? `${count(one.replies_due)} replies due` : null,
  ];
  const primary = el("div", { class: "node shard", "data-state": state, "data-shard": String(one.number) },
    el("span", {}, el("b", {}, `Shard ${one.number}`), " ", el("span", { class: "mono" }, one.primary || "no primary"),
      el("br"), el("span", { class: "dim" }, words.filter(Boolean).join(" · ")),
      el("br"), el("span", { class: "dim mono" }, ranges(one.ranges))),
    tag(said(one), state));
  const others = one.replicas.map((each) => box(each.address, "replica", each.state,
    { online: "good", loading: "warn" }[each.state] || "bad", "below"));
  return [primary, ...others];
}

function said(one) {
  if (one.state === "lost") return one.primary ? `lost for ${duration(one.silent_s)}` : "no primary";
  if (one.state === "late" || one.state === "overdue") return `silent for ${duration(one.silent_s)}`;
  return { up: "connected", idle: "not needed yet", connecting: "connecting" }[one.state];
}

// A shard with far more or fewer slots than the others.
function unlike(one, having) {
  const times = one.slots * having / SLOTS;
  return one.slots && having > 1 && (times >= 1.5 || times <= 0.5) ? `, ${times.toFixed(1)} times the mean` : "";
}

function ranges(list) {
  const words = list.slice(0, RANGES).map(([first, last]) => (first === last ? String(first) : `${first}-${last}`));
  return words.join(", ") + (list.length > RANGES ? `, and ${list.length - RANGES} more ranges` : "");
}

function picture(list) {
  const track = el("div", { class: "track slots", role: "img", "aria-label": "The slots by shard" });
  const parts = list.flatMap((one, place) => one.ranges.map(([first, last]) => [first, last, one, place]));
  for (const [first, last, one, place] of parts.slice(0, PARTS)) {
    const state = one.primary ? GRADES[one.state] : "bad";
    track.append(el("i", { class: place % 2 ? "odd" : "", "data-state": state, title: `Shard ${one.number}: ${first}-${last}`,
      left: `${100 * first / SLOTS}%`, width: `${100 * (last - first + 1) / SLOTS}%` }));
  }
  return track;
}

// Figures of the whole cluster; hidden where the upstream is none.
export function cluster(now, point) {
  const node = byId("cluster");
  node.hidden = !now;
  if (!now) return;
  const kinds = Object.entries(now.redirections).filter(([, number]) => number);
  const total = kinds.map(([kind, number]) => `${count(number)} ${kind}`).join(", ");
  fill(node, facts([
    ["Shards", count(now.shards)],
    ["Slots without a shard", count(now.uncovered)],
    ["Slots of a shard", `${count(now.least_slots)} to ${count(now.most_slots)}`],
    ["Redirections", `${count(point?.redirections)} per s${total ? `; since the start ${total}` : ""}`],
    ["Slots moved", count(now.moved)],
    ["Primaries switched", count(now.switches)],
    ["Clients redirected now", count(now.waiting)],
  ]));
}

// The number of the shard that has this slot; null if none has, or none is known.
export function shardOf(slot, list) {
  if (slot === null || slot === undefined) return null;
  return (list || []).find((one) => one.ranges.some(([first, last]) => first <= slot && slot <= last))?.number ?? null;
}
