// Numbers and times for people to read.

export function count(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1e6) return `${(value / 1e6).toFixed(value >= 1e7 ? 1 : 2)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  if (value >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return value.toFixed(1);
}

// [number, unit] of a duration in seconds.
export function split(seconds) {
  if (seconds === null || seconds === undefined) return ["–", ""];
  if (seconds < 1e-3) return [trim(seconds * 1e6), "µs"];
  if (seconds < 1) return [trim(seconds * 1e3), "ms"];
  return [trim(seconds), "s"];
}

export function duration(seconds) {
  return split(seconds).join(" ").trim();
}

function trim(value) {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  let unit = 0;
  while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
  return `${unit ? trim(value) : value} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

export function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = share * 100;
  return value >= 99.95 ? "100" : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function clock(milliseconds) {
  return new Date(milliseconds).toLocaleTimeString([], { hour12: false });
}

export function moment(milliseconds) {
  const date = new Date(milliseconds);
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock(milliseconds) : `${date.toLocaleDateString()} ${clock(milliseconds)}`;
}

export function span(seconds) {
  if (seconds < 0) return "over";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}
