// All VPSs of the project, with what they use now.

import { get, power } from "./api.js";
import { button, bytes, h, note, size, table, td } from "./dom.js";
import { Meter, addresses, percent, rate } from "./figures.js";
import { follow } from "./happenings.js";

const EVERY = 3000;
const HEADS = ["Name", "Status", "Processor", "Memory", "Disk", "Received", "Sent", "Address", ""];

export default async function list(place, signal) {
  const meter = new Meter();
  const rows = new Map();
  const shown = table(HEADS, [], "vpss");
  const body = shown.tBodies[0];
  const filter = h("input", { type: "search", placeholder: "Filter by name", ariaLabel: "Filter by name", oninput: sift });
  const empty = h("div", { className: "card empty", hidden: true },
    h("p", {}, "There is no VPS yet."), h("a", { className: "button main", href: "#/new" }, "New VPS"));
  const card = h("div", { className: "card" }, shown);

  function sift() {
    for (const [name, row] of rows) row.hidden = !name.includes(filter.value.trim());
  }

  async function refresh() {
    const all = await get("/1.0/instances?recursion=2");
    const there = new Set(all.map((vps) => vps.name));
    for (const [name, row] of rows) if (!there.has(name)) { row.remove(); rows.delete(name); }
    for (const vps of all.sort((a, b) => a.name.localeCompare(b.name))) {
      const row = rows.get(vps.name) ?? h("tr");
      fill(row, vps, meter.read(vps.name, vps.state), refresh);
      if (!rows.has(vps.name)) { rows.set(vps.name, row); body.append(row); }
    }
    empty.hidden = all.length > 0;
    card.hidden = all.length === 0;
    sift();
  }

  place.append(
    h("div", { className: "bar" }, h("h1", {}, "VPSs"), filter,
      h("a", { className: "button main end", href: "#/new" }, "New VPS")),
    card, empty);
  await refresh();
  let failed = false;
  const again = () => refresh().then(() => { failed = false; }, (error) => { if (!failed) note(error.message, true); failed = true; });
  const timer = setInterval(again, EVERY);
  signal.addEventListener("abort", () => clearInterval(timer));
  follow(signal, again);
}

// Writes a row anew without taking the focus away from it.
function fill(row, vps, use, refresh) {
  const limit = size(vps.expanded_config["limits.memory"]);
  const memory = [bytes(use.memory), limit > 0 && h("meter", {
    max: limit, value: use.memory, high: limit * 0.9, ariaLabel: `of ${bytes(limit)}`, title: `of ${bytes(limit)}`,
  })].filter(Boolean);
  const runs = vps.status === "Running";
  const cells = [
    [h("a", { href: `#/vps/${encodeURIComponent(vps.name)}` }, vps.name)],
    [h("span", { className: `status ${vps.status}` }, vps.status)],
    [runs ? percent(use.cpu) : ""], runs ? memory.flatMap((part) => [part, " "]) : [""], [bytes(use.disk)],
    [runs ? rate(use.received) : ""], [runs ? rate(use.sent) : ""], [addresses(vps.state)[0] ?? ""],
  ];
  if (row.cells.length === 0 || row.dataset.status !== vps.status) {
    row.dataset.status = vps.status;
    const act = async (action) => { await power(vps.name, action); await refresh(); };
    const next = vps.status === "Stopped" ? ["Start", "start"] : vps.status === "Frozen" ? ["Thaw", "unfreeze"] : ["Stop", "stop"];
    row.replaceChildren(...cells.map((cell, i) => td(HEADS[i], cell)),
      td("", button(next[0], () => act(next[1]), { ariaLabel: `${next[0]} ${vps.name}` })));
    return;
  }
  cells.forEach((cell, i) => { if (i > 1) row.cells[i].replaceChildren(...cell); });
}
