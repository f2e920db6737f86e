// What a VPS uses now, and did since the page was opened.

import { get, instance } from "./api.js";
import { bytes, h, size, stylesheet } from "./dom.js";
import { Meter, addresses, percent, rate } from "./figures.js";

const EVERY = 2000;
const KEPT = 300;
const GRAPHS = [
  ["Processor", [["of one", "cpu", (n) => n * 100]], (n) => `${n.toFixed(n < 10 && n > 0 ? 1 : 0)} %`],
  ["Memory", [["used", "memory", (n) => n]], bytes],
  ["Network", [["received", "received", (n) => n], ["sent", "sent", (n) => n]], (n) => `${bytes(n)}/s`],
];

// Steps between the lines of an axis of bytes.
const POWERS = Array.from({ length: 41 }, (_, i) => 2 ** i);

export default async function overview(place, signal, name) {
  const meter = new Meter();
  const tiles = h("div", { className: "tiles" });
  const graphs = h("div", { className: "graphs" });
  const vps = await get(instance(name));
  place.append(tiles, graphs, about(vps));
  const draw = await graphsIn(graphs, signal);

  async function refresh() {
    const state = await get(`${instance(name)}/state`);
    const use = meter.read(name, state);
    tiles.replaceChildren(...facts(vps, state, use).map(([what, value, more]) => h("div", { className: "card" },
      what, h("strong", {}, value), h("span", { className: "quiet" }, more ?? ""))));
    draw(use);
  }

  await refresh();
  const timer = setInterval(() => refresh().catch(() => {}), EVERY);
  signal.addEventListener("abort", () => clearInterval(timer));
}

function facts(vps, state, use) {
  const limit = size(vps.expanded_config["limits.memory"]);
  const disk = size(Object.values(vps.expanded_devices).find((one) => one.path === "/")?.size);
  const [first, ...others] = addresses(state);
  return [
    ["Processor", percent(use.cpu), vps.expanded_config["limits.cpu"] && `limit ${vps.expanded_config["limits.cpu"]}`],
    ["Memory", bytes(use.memory), limit > 0 && `of ${bytes(limit)}`],
    ["Disk", bytes(use.disk), disk > 0 && `of ${bytes(disk)}`],
    ["Network", `${rate(use.received)} in`, `${rate(use.sent)} out`],
    ["Processes", String(use.processes)],
    ["Address", first ?? "none", others.join(", ")],
  ];
}

function about(vps) {
  return h("p", { className: "quiet" },
    `${vps.config["image.description"] ?? vps.config["image.alias"] ?? "Image"} · made ${new Date(vps.created_at).toLocaleString()}`,
    ` · profiles: ${vps.profiles.join(", ") || "none"}`);
}

// Graphs where their library is there. The numbers above say the same.
async function graphsIn(place, signal) {
  let Plot;
  try {
    ({ default: Plot } = await import("./vendor/uPlot.esm.js"));
  } catch {
    place.append(h("p", { className: "quiet" }, "This condo-server was built without graphs: make web fetches what they need."));
    return () => {};
  }
  stylesheet("vendor/uPlot.min.css");
  const style = getComputedStyle(document.documentElement);
  const colours = [style.getPropertyValue("--accent"), style.getPropertyValue("--still")].map(resolved);
  const drawn = GRAPHS.map(([title, lines, unit]) => {
    const card = h("figure", { className: "card", style: "margin: 0" }, h("figcaption", {}, h("h2", {}, title)));
    place.append(card);
    const data = [[], ...lines.map(() => [])];
    const axis = { stroke: resolved(style.getPropertyValue("--quiet")), grid: { stroke: resolved(style.getPropertyValue("--line")) } };
    const plot = new Plot({
      width: 300, height: 180, cursor: { show: false }, legend: { show: lines.length > 1, live: false },
      scales: { y: { range: (_, __, most) => [0, Math.max(most * 1.1, 1)] } },
      axes: [axis, { ...axis, size: 80, incrs: title === "Processor" ? undefined : POWERS, values: (_, ticks) => ticks.map(unit) }],
      series: [{}, ...lines.map(([label], i) => ({ label, stroke: colours[i], width: 2, value: (_, n) => (n === null ? "" : unit(n)) }))],
    }, data, card);
    const fit = new ResizeObserver(() => plot.setSize({ width: Math.max(card.clientWidth - 32, 100), height: 180 }));
    fit.observe(card);
    signal.addEventListener("abort", () => { fit.disconnect(); plot.destroy(); });
    return { plot, data, lines };
  });
  return (use) => {
    for (const { plot, data, lines } of drawn) {
      data[0].push(Date.now() / 1000);
      lines.forEach(([, key, scale], i) => data[i + 1].push(use[key] === undefined ? null : scale(use[key])));
      for (const line of data) if (line.length > KEPT) line.shift();
      plot.setData(data);
    }
  };
}

// A colour as a canvas takes it: light-dark() is for style sheets.
function resolved(colour) {
  const probe = h("span", { style: `color: ${colour}` });
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
