// A line chart on a canvas: several lines, marks, and the values at the pointer or, with the arrow
// keys, at a point in time.

import { el } from "./dom.js";
import { clock } from "./format.js";

const LEFT = 56, RIGHT = 8, TOP = 8, BOTTOM = 20;

export class Chart {
  // lines: [{ name, colour, value(point), fill }]; format turns a value into text
  constructor(figure, title, lines, format, { log = false, floor = 1, ceiling = null, step = nice, ticks = format } = {}) {
    Object.assign(this, { lines, format, log, floor, ceiling, step, tick: ticks, at: null, seconds: 300 });
    this.canvas = el("canvas", { tabindex: "0", role: "img", "aria-label": title });
    this.title = title;
    this.values = lines.map(() => el("b", {}, "–"));
    const legend = el("div", { class: "legend" }, ...lines.map((line, i) => el("span", {},
      el("span", { class: "swatch", "data-colour": line.colour }), `${line.name} `, this.values[i])));
    this.time = el("span", { class: "dim" });
    figure.append(el("figcaption", { class: "chart-head" }, el("h2", {}, title), legend, this.time), this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => { this.at = null; this.draw(); });
    this.canvas.addEventListener("blur", () => { this.at = null; this.draw(); });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  show(series, seconds) {
    this.series = series;
    this.seconds = seconds;
    this.draw();
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    this.at = this.begin + Math.max(0, Math.min(1, share)) * this.seconds * 1000;
    this.draw();
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 }[event.key];
    if (!step) return;
    event.preventDefault();
    const end = this.begin + this.seconds * 1000;
    this.at = Math.max(this.begin, Math.min(end, (this.at ?? end) + step * 1000));
    this.draw();
  }

  draw() {
    if (!this.series || document.hidden) return;
    const scale = window.devicePixelRatio || 1;
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (!width) return;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
    }
    const c = this.canvas.getContext("2d");
    c.setTransform(scale, 0, 0, scale, 0, 0);
    c.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const newest = this.series.latest?.t ?? Date.now();
    this.begin = newest - this.seconds * 1000;
    const runs = this.series.runs(this.begin);
    const x = (time) => LEFT + (time - this.begin) / (this.seconds * 1000) * (width - LEFT - RIGHT);
    const y = this.axis(c, runs, width, height, colour);
    this.marks(c, x, height, colour);
    for (const line of this.lines) {
      for (const run of runs) this.line(c, line, run, x, y, height, colour(line.colour));
    }
    this.read(c, x, y, height, colour);
  }

  axis(c, runs, width, height, colour) {
    let most = this.floor, least = Infinity;
    for (const run of runs) {
      for (const point of run) {
        for (const line of this.lines) {
          const value = line.value(point);
          if (value === null || value === undefined) continue;
          most = Math.max(most, value);
          if (value > 0) least = Math.min(least, value);
        }
      }
    }
    const inner = height - TOP - BOTTOM;
    c.font = "11px system-ui, sans-serif";
    c.textBaseline = "middle";
    c.textAlign = "right";
    let y, ticks;
    if (this.log) {
      const low = Math.floor(Math.log10(Math.min(least, most) || 1e-6));
      const high = Math.max(low + 1, Math.ceil(Math.log10(most)));
      y = (value) => TOP + inner * (1 - (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low));
      ticks = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
    } else {
      const top = this.ceiling ?? this.step(most);
      y = (value) => TOP + inner * (1 - Math.min(value, top) / top);
      ticks = [0, top / 4, top / 2, 3 * top / 4, top];
    }
    for (const tick of ticks) {
      c.strokeStyle = colour("grid");
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(LEFT, Math.round(y(tick)) + 0.5);
      c.lineTo(width - RIGHT, Math.round(y(tick)) + 0.5);
      c.stroke();
      c.fillStyle = colour("dim");
      c.fillText(this.tick(tick), LEFT - 7, y(tick));
    }
    c.textBaseline = "alphabetic";
    const places = width > 460 ? 4 : 2;
    for (let i = 0; i <= places; i += 1) {
      const time = this.begin + this.seconds * 1000 * i / places;
      c.textAlign = i === 0 ? "left" : i === places ? "right" : "center";
      c.fillText(clock(time), LEFT + (width - LEFT - RIGHT) * i / places, height - 4);
    }
    return y;
  }

  line(c, line, run, x, y, height, colour) {
    c.strokeStyle = colour;
    c.lineWidth = 1.8;
    c.lineJoin = "round";
    c.beginPath();
    let first = null, last = null;
    for (const point of run) {
      const value = line.value(point);
      if (value === null || value === undefined) { last = null; continue; }
      if (last === null) c.moveTo(x(point.t), y(value));
      else c.lineTo(x(point.t), y(value));
      first ??= point;
      last = point;
    }
    c.stroke();
    if (run.length === 1 && first) c.fillRect(x(first.t) - 1.5, y(line.value(first)) - 1.5, 3, 3);
    if (line.fill && first && last && run.every((point) => line.value(point) !== null)) {
      c.lineTo(x(last.t), height - BOTTOM);
      c.lineTo(x(first.t), height - BOTTOM);
      c.closePath();
      c.globalAlpha = 0.13;
      c.fillStyle = colour;
      c.fill();
      c.globalAlpha = 1;
    }
  }

  marks(c, x, height, colour) {
    for (const mark of this.series.marks) {
      if (mark.time < this.begin) continue;
      c.strokeStyle = colour(mark.kind === "restart" ? "bad" : "c2");
      c.setLineDash([3, 3]);
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(x(mark.time), TOP);
      c.lineTo(x(mark.time), height - BOTTOM);
      c.stroke();
      c.setLineDash([]);
    }
  }

  // The values at the pointer, else the latest.
  read(c, x, y, height, colour) {
    let point = this.series.latest;
    if (this.at !== null && point) {
      for (const one of this.series.sorted) if (Math.abs(one.t - this.at) < Math.abs(point.t - this.at)) point = one;
      c.strokeStyle = colour("dim");
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(x(point.t), TOP);
      c.lineTo(x(point.t), height - BOTTOM);
      c.stroke();
      for (const line of this.lines) {
        const value = line.value(point);
        if (value === null || value === undefined) continue;
        c.fillStyle = colour(line.colour);
        c.beginPath();
        c.arc(x(point.t), y(value), 3.2, 0, 7);
        c.fill();
      }
    }
    this.time.textContent = this.at !== null && point ? clock(point.t) : "";
    const words = this.lines.map((line, i) => {
      const value = point ? line.value(point) : null;
      const shown = value === null || value === undefined ? "–" : this.format(value);
      this.values[i].textContent = shown;
      return `${line.name} ${shown}`;
    });
    this.canvas.setAttribute("aria-label", `${this.title}: ${words.join(", ")}`);
  }
}

// The next power of two.
export function binary(value) {
  return 2 ** Math.ceil(Math.log2(value));
}

// The next of 1, 2, 4, 5 × 10ⁿ.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 4, 5, 8, 10].find((step) => value <= step * power * 1.0001);
}
