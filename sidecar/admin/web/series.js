// The points of the charts, by their time: a point that is sent again after a lost connection
// replaces itself. Points are rates, so no counter can jump back. A restart of the sidecar is a mark,
// and the line has a gap there.

export const KEEP = 900;
const GAP = 3500;

export class Series {
  constructor() {
    this.points = new Map();
    this.marks = [];
    this.sorted = [];
  }

  add(points) {
    for (const point of points) if (point) this.points.set(point.t, point);
    const times = [...this.points.keys()].sort((a, b) => a - b);
    const newest = times[times.length - 1] || 0;
    this.sorted = [];
    for (const time of times) {
      if (time < newest - KEEP * 1000) this.points.delete(time);
      else this.sorted.push(this.points.get(time));
    }
  }

  mark(time, kind, words) {
    if (!this.marks.some((mark) => mark.time === time && mark.kind === kind)) {
      this.marks.push({ time, kind, words });
      this.marks = this.marks.slice(-200);
    }
  }

  get latest() {
    return this.sorted[this.sorted.length - 1] || null;
  }

  // Points after `since`, in runs without a gap.
  runs(since) {
    const found = [];
    let before = null;
    for (const point of this.sorted) {
      if (point.t < since) continue;
      if (!before || point.t - before.t > GAP) found.push([]);
      found[found.length - 1].push(point);
      before = point;
    }
    return found;
  }
}
