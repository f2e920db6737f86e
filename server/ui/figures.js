// What VPSs use, and how that changes.

import { bytes } from "./dom.js";

// Of two readings of a VPS's state: what it uses in a second.
export class Meter {
  #before = new Map();

  read(name, state) {
    const now = {
      at: performance.now() / 1000,
      cpu: (state?.cpu?.usage ?? 0) / 1e9,
      ...traffic(state),
    };
    const before = this.#before.get(name);
    this.#before.set(name, now);
    const since = before ? now.at - before.at : 0;
    const rate = (key) => (since > 0 && now[key] >= before[key] ? (now[key] - before[key]) / since : undefined);
    return {
      cpu: rate("cpu"), received: rate("received"), sent: rate("sent"),
      memory: state?.memory?.usage ?? 0, disk: state?.disk?.root?.usage ?? 0, processes: state?.processes ?? 0,
    };
  }
}

// Its interfaces but the loopback.
function links(state) {
  return Object.entries(state?.network ?? {}).filter(([name]) => name !== "lo").map(([, link]) => link);
}

function traffic(state) {
  const sum = (key) => links(state).reduce((all, link) => all + (link.counters?.[key] ?? 0), 0);
  return { received: sum("bytes_received"), sent: sum("bytes_sent") };
}

export function addresses(state) {
  return links(state).flatMap((link) => link.addresses ?? []).filter((one) => one.scope === "global").map((one) => one.address);
}

export const percent = (share) => (share === undefined ? "…" : `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`);
export const rate = (n) => (n === undefined ? "…" : `${bytes(n)}/s`);
