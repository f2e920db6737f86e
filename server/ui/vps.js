// One VPS: a head with its power switch, and a tab for each subject.

import { ask, get, instance, power } from "./api.js";
import { button, h, note, sure } from "./dom.js";
import { follow } from "./happenings.js";

const TABS = [
  ["", "Overview", () => import("./overview.js")],
  ["terminal", "Terminal", () => import("./terminal.js")],
  ["snapshots", "Snapshots", () => import("./snapshots.js")],
  ["network", "Network", () => import("./network.js")],
  ["settings", "Settings", () => import("./settings.js")],
];

export default async function vps(place, signal, name, tab = "") {
  const path = `#/vps/${encodeURIComponent(name)}`;
  const head = h("div", { className: "bar" });
  const [, , load] = TABS.find(([key]) => key === tab) ?? TABS[0];
  const body = h("div");

  async function refresh() { head.replaceChildren(...summary(await get(instance(name)), refresh)); }

  // From now on: what happens while this is drawn must not be missed.
  follow(signal, (event) => {
    if (event.source.split("?")[0] !== instance(name)) return;
    if (event.action === "instance-deleted") location.hash = "#/";
    else refresh().catch((error) => note(error.message, true));
  });
  await refresh();
  place.append(head,
    h("nav", { className: "tabs", ariaLabel: name }, TABS.map(([key, text]) => h("a", {
      href: key ? `${path}/${key}` : path, "aria-current": key === tab ? "page" : undefined,
    }, text))),
    body);
  const { default: render } = await load();
  await render(body, signal, name);
}

function summary(vps, refresh) {
  const act = (text, action, force) => button(text, async () => { await power(vps.name, action, force); await refresh(); });
  const remove = async () => {
    if (!(await sure(`Delete ${vps.name} with its disk and snapshots?`, "Delete"))) return;
    if (vps.status !== "Stopped") await power(vps.name, "stop", true);
    await ask("DELETE", instance(vps.name));
    location.hash = "#/";
  };
  const actions = {
    Running: [act("Stop", "stop"), act("Restart", "restart"), act("Freeze", "freeze")],
    Frozen: [act("Thaw", "unfreeze"), act("End", "stop", true)],
    Stopped: [act("Start", "start")],
  };
  return [
    h("h1", {}, vps.name), h("span", { className: `status ${vps.status}` }, vps.status),
    h("span", { className: "bar end", style: "margin-bottom: 0" },
      actions[vps.status] ?? [], button("Delete", remove, { className: "bad" })),
  ];
}
