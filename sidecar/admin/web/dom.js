// Makes elements. Every text becomes a text node: text from clients is never read as markup.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("--")) continue;
    if (name === "class") made.className = value;
    else if (name === "left" || name === "width") made.style[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}

export function text(id, value) {
  const node = byId(id);
  if (node.textContent !== value) node.textContent = value;
}

// Replace what an element holds, keeping the focus and which details are open.
export function fill(node, ...children) {
  const open = new Set([...node.querySelectorAll("details[open]")].map((one) => one.dataset.id));
  const focused = node.contains(document.activeElement)
    ? document.activeElement.closest("[data-id]")?.dataset.id : null;
  node.replaceChildren(...children.filter(Boolean));
  for (const one of node.querySelectorAll("details")) one.open = open.has(one.dataset.id);
  if (focused) {
    for (const one of node.querySelectorAll("[data-id]")) {
      if (one.dataset.id === focused) (one.querySelector("summary") || one).focus();
    }
  }
}

export function facts(pairs) {
  const list = el("dl", { class: "facts" });
  for (const [name, value] of pairs) {
    if (value === null || value === undefined) continue;
    list.append(el("dt", {}, name), el("dd", {}, value));
  }
  return list;
}

export function tag(words, state) {
  return el("span", { class: "tag", "data-state": state }, words);
}

// One server, or one thing like it, with its state in words.
export function box(name, role, words, state, place = "") {
  return el("div", { class: `node ${place}`, "data-state": state },
    el("span", { class: "mono" }, name), role ? el("span", { class: "dim" }, role) : null,
    tag(words, state));
}

export function table(heads, rows) {
  const head = el("tr", {}, ...heads.map(([name, side]) => el("th", { class: side, scope: "col" }, name)));
  return el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows));
}

export function empty(words) {
  return el("p", { class: "empty" }, words);
}
