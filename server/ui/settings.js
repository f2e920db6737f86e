// What a VPS may use, and whether it starts with the host.

import { ask, get, instance } from "./api.js";
import { check, field, form, h } from "./dom.js";

const CONFIG = [
  ["limits.cpu", "Processors", "2, or 0-3 for these"],
  ["limits.memory", "Memory", "512MiB"],
  ["limits.processes", "Processes", "4096"],
];
const ROOT = [["size", "Disk", "10GiB"], ["limits.read", "Read", "30MB, or 100iops"], ["limits.write", "Write", "30MB, or 100iops"]];
const NIC = [["limits.ingress", "Receive", "100Mbit"], ["limits.egress", "Send", "100Mbit"]];

export default async function settings(place, signal, name) {
  const vps = await get(instance(name));
  const devices = Object.entries(vps.expanded_devices).sort();
  const root = devices.find(([, device]) => device.path === "/");
  const nic = devices.find(([, device]) => device.type === "nic");
  const inputs = new Map();
  const input = (group, [key, label, example], before) => {
    const element = h("input", { value: before[key] ?? "", placeholder: example, autocomplete: "off" });
    inputs.set(`${group}.${key}`, element);
    return field(label, element);
  };
  const boots = h("input", { type: "checkbox", checked: vps.expanded_config["boot.autostart"] === "true" });
  const save = h("button", { className: "main" }, "Save");

  // Only what was changed: the rest stays the profiles'.
  const changed = (group, fields, before) => Object.fromEntries(fields
    .map(([key]) => [key, inputs.get(`${group}.${key}`).value.trim()])
    .filter(([key, value]) => value !== (before[key] ?? "")));
  const store = async () => {
    const config = changed("config", CONFIG, vps.expanded_config);
    if (boots.checked !== (vps.expanded_config["boot.autostart"] === "true")) config["boot.autostart"] = String(boots.checked);
    const body = { config, devices: {} };
    for (const [group, fields, device] of [["root", ROOT, root], ["nic", NIC, nic]]) {
      if (!device) continue;
      const options = changed(group, fields, device[1]);
      if (Object.keys(options).length > 0) body.devices[device[0]] = { ...device[1], ...options };
    }
    await ask("PATCH", instance(name), body);
    place.replaceChildren();
    await settings(place, signal, name);
  };
  place.append(form(save, store, { className: "card", done: () => "Saved" },
    h("div", { className: "fields" },
      CONFIG.map((one) => input("config", one, vps.expanded_config)),
      root && ROOT.map((one) => input("root", one, root[1])),
      nic && NIC.map((one) => input("nic", one, nic[1])),
      check("Start it with the host", boots))));
}
