// A new VPS.

import { ask, get, power } from "./api.js";
import { check, field, form, h, options } from "./dom.js";

export default async function create(place) {
  const [images, plans] = await Promise.all([get("/1.0/images?recursion=1"), get("/1.0/profiles?recursion=1")]);
  const input = (properties) => h("input", properties);
  const name = input({ required: true, pattern: "[a-z0-9]([a-z0-9\\-]*[a-z0-9])?", maxLength: 63, autocomplete: "off", spellcheck: false });
  const image = options(h("select", { required: true }), images.flatMap((one) => one.aliases.slice(0, 1)).map((alias) => [alias.name]));
  const plan = options(h("select"), plans.map((one) => [one.name, one.description || one.name]), "default");
  const cpu = input({ placeholder: "all", inputMode: "numeric" });
  const memory = input({ placeholder: "512MiB" });
  const disk = input({ placeholder: "10GiB" });
  const data = h("textarea", { rows: 4, spellcheck: false });
  const boots = input({ type: "checkbox" });
  const starts = input({ type: "checkbox", checked: true });
  const submit = h("button", { className: "main" }, "Create");

  async function make() {
    const config = {
      "limits.cpu": cpu.value.trim(), "limits.memory": memory.value.trim(), "user.user-data": data.value,
      "boot.autostart": boots.checked ? "true" : "",
    };
    const devices = disk.value.trim() ? { root: { type: "disk", path: "/", pool: "default", size: disk.value.trim() } } : {};
    await ask("POST", "/1.0/instances", {
      name: name.value, source: { type: "image", alias: image.value }, profiles: [plan.value], devices,
      config: Object.fromEntries(Object.entries(config).filter(([, value]) => value)),
    });
    // It is there: what comes after this is about its page.
    location.hash = `#/vps/${encodeURIComponent(name.value)}`;
    if (starts.checked) await power(name.value, "start");
  }

  place.append(h("h1", {}, "New VPS"),
    form(submit, make, { className: "card", done: () => `${name.value} is there` },
      h("div", { className: "fields" },
        field("Name", name, "small letters, digits, hyphens"),
        field("Image", image),
        field("Plan", plan, "what it has unless said below"),
        field("Processors", cpu),
        field("Memory", memory),
        field("Disk", disk),
        h("div", { className: "wide" }, field("User data", data, "for cloud-init, or a script; at the first start")),
        check("Start it with the host", boots),
        check("Start it now", starts))));
  if (images.length === 0) {
    place.append(h("p", { className: "card" }, "There is no image yet. On the host: ", h("code", {}, "condo image build debian-12")));
  }
}
