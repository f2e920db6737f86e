// Snapshots of a VPS.

import { ask, get, instance } from "./api.js";
import { button, field, form, h, sure, table } from "./dom.js";

export default async function snapshots(place, signal, name) {
  const path = `${instance(name)}/snapshots`;
  const list = h("div", { className: "card" });
  const wanted = h("input", { placeholder: "chosen if left empty", autocomplete: "off" });
  const take = h("button", { className: "main" }, "Take a snapshot");

  async function refresh() {
    const all = await get(`${path}?recursion=1`);
    list.replaceChildren(all.length === 0
      ? h("p", { className: "quiet empty" }, "There is no snapshot.")
      : table(["Name", "Taken", ""], all.map((one) => [one.name, new Date(one.created_at).toLocaleString(), acts(one.name)])));
  }

  // One thing at a time: a snapshot that a VPS is being set back to is not to be deleted meanwhile.
  async function alone(work) {
    list.inert = true;
    try { await work(); } finally { list.inert = false; }
  }

  function acts(snapshot) {
    const restore = async () => {
      if (!(await sure(`Set ${name} back to ${snapshot}? What was written since is lost.`, "Restore"))) return;
      await alone(() => ask("PUT", instance(name), { restore: snapshot }));
    };
    const remove = async () => {
      if (!(await sure(`Delete the snapshot ${snapshot}?`, "Delete"))) return;
      await alone(() => ask("DELETE", `${path}/${encodeURIComponent(snapshot)}`));
      await refresh();
    };
    return h("span", {},
      button("Restore", restore, { ariaLabel: `Restore ${snapshot}` }), " ",
      button("Delete", remove, { className: "bad", ariaLabel: `Delete ${snapshot}` }));
  }

  const make = async () => {
    await ask("POST", path, { name: wanted.value.trim(), stateful: false });
    wanted.value = "";
    await refresh();
  };
  place.append(
    form(take, make, { className: "card" }, h("div", { className: "fields" }, field("Name", wanted))),
    list);
  await refresh();
}
