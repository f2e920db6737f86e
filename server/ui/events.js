// What has happened since this page was opened.

import { h, table } from "./dom.js";
import { follow, kept } from "./happenings.js";

export default async function events(place, signal) {
  const list = h("div", { className: "card" });
  const show = () => list.replaceChildren(kept.length === 0
    ? h("p", { className: "quiet empty" }, "Nothing has happened since this page was opened.")
    : table(["Time", "What", "Of"], kept.map((event) => [
      event.time.toLocaleTimeString(), event.action, whose(event.source),
    ])));
  place.append(h("div", { className: "bar" }, h("h1", {}, "Events")), list);
  show();
  follow(signal, show);
}

function whose(source) {
  const name = /^\/1\.0\/instances\/([^/?]+)/.exec(source)?.[1];
  return name ? h("a", { href: `#/vps/${name}` }, decodeURIComponent(name)) : source;
}
