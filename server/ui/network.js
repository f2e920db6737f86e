// Published ports and the firewall of a VPS.

import { ask, change, get, instance } from "./api.js";
import { button, field, form, h, note, options, table } from "./dom.js";

export default async function network(place, signal, name) {
  const ports = h("div"), firewall = h("div");
  place.append(
    h("section", { className: "card" }, h("h2", {}, "Published ports"), ports),
    h("section", { className: "card" }, h("h2", {}, "Firewall"), firewall));
  await Promise.all([showPorts(ports, name), showFirewall(firewall, name)]);
}

async function showPorts(place, name) {
  const refresh = () => showPorts(place, name);
  const vps = await get(instance(name));
  const doors = Object.entries(vps.expanded_devices).filter(([, device]) => device.type === "proxy");
  // One of a profile is covered by one that is none.
  const close = (key) => change(instance(name), (object) => {
    if (object.devices[key]) delete object.devices[key];
    else object.devices[key] = { type: "none" };
  }).then(refresh);
  const protocol = options(h("select"), [["tcp"], ["udp"]]);
  const host = h("input", { required: true, inputMode: "numeric", pattern: "[0-9]+(-[0-9]+)?" });
  const inside = h("input", { required: true, inputMode: "numeric", pattern: "[0-9]+(-[0-9]+)?" });
  const submit = h("button", {}, "Publish");
  const open = async () => {
    const devices = { [`port-${protocol.value}-${host.value}`]: {
      type: "proxy", listen: `${protocol.value}:0.0.0.0:${host.value}`, connect: `${protocol.value}:127.0.0.1:${inside.value}`,
    } };
    await ask("PATCH", instance(name), { devices });
    await refresh();
  };
  place.replaceChildren(
    doors.length > 0 && table(["Of the host", "Inside", ""], doors.map(([key, door]) => [
      door.listen, door.connect, button("Close", () => close(key), { ariaLabel: `Close ${door.listen}` }),
    ])),
    form(submit, open, {},
      h("div", { className: "fields" }, field("Protocol", protocol), field("Port of the host", host), field("Port inside", inside))));
}

const POLICIES = [["In", "security.acls.default.ingress.action"], ["Out", "security.acls.default.egress.action"]];

async function showFirewall(place, name) {
  const path = `/1.0/network-acls/${encodeURIComponent(name)}`;
  const refresh = () => showFirewall(place, name);
  const [acl, vps] = await Promise.all([get(path), get(instance(name))]);
  const rules = [...acl.ingress.map((rule, i) => ["ingress", rule, i]), ...acl.egress.map((rule, i) => ["egress", rule, i])];
  // By what it says: others may have changed the list.
  const remove = (way, gone) => change(path, (object) => {
    object[way] = object[way].filter((rule) => JSON.stringify(rule) !== JSON.stringify(gone));
  }).then(refresh);
  place.replaceChildren(
    policies(vps, refresh),
    rules.length > 0 && table(["Way", "Does", "Protocol", "Ports", "From", "To", ""], rules.map(([way, rule, i]) => [
      way === "ingress" ? "in" : "out", rule.action + (rule.state === "logged" ? ", logged" : ""), rule.protocol || "any",
      rule.destination_port || "any", rule.source || "any", rule.destination || "any",
      button("Remove", () => remove(way, rule), { ariaLabel: `Remove rule ${i + 1} ${way}` }),
    ])),
    adder(path, refresh));
}

// What becomes of packets that no rule is about.
function policies(vps, refresh) {
  const [key, nic] = Object.entries(vps.expanded_devices).sort().find(([, device]) => device.type === "nic") ?? [];
  if (!nic) return h("p", { className: "quiet" }, "It has no network.");
  const choose = async (option, value) => {
    try {
      await ask("PATCH", instance(vps.name), { devices: { [key]: { ...nic, [option]: value } } });
    } catch (error) {
      note(error.message, true);
    }
    await refresh();
  };
  return h("div", { className: "fields" }, POLICIES.map(([way, option]) => {
    const select = options(h("select", { onchange: () => { select.disabled = true; choose(option, select.value); } }),
      [["allow", "allow"], ["drop", "drop"]], nic[option] ?? "allow");
    return field(`${way}: what no rule is about`, select);
  }));
}

function adder(path, refresh) {
  const way = options(h("select"), [["ingress", "in"], ["egress", "out"]]);
  const action = options(h("select"), [["allow"], ["drop"]]);
  const protocol = options(h("select"), [["tcp"], ["udp"], ["icmp4"], ["icmp6"], ["", "any"]]);
  const port = h("input", { placeholder: "any" });
  const peer = h("input", { placeholder: "any" });
  const submit = h("button", {}, "Add the rule");
  const add = async () => {
    const rule = { action: action.value, state: "enabled", protocol: protocol.value, destination_port: port.value.trim() };
    rule[way.value === "ingress" ? "source" : "destination"] = peer.value.trim();
    await change(path, (object) => { object[way.value].push(rule); });
    await refresh();
  };
  return form(submit, add, {},
    h("div", { className: "fields" }, field("Way", way), field("Does", action), field("Protocol", protocol),
      field("Ports", port), field("From (in) or to (out)", peer, "an address or a network")));
}
