// The frame around the pages: who is logged in, which page is shown, and what happens meanwhile.

import { chooseProject, currentProject, get, Refused } from "./api.js";
import { h, note, options } from "./dom.js";
import { listen } from "./happenings.js";

const PAGES = [
  [/^\/$/, () => import("./list.js")],
  [/^\/new$/, () => import("./create.js")],
  [/^\/events$/, () => import("./events.js")],
  [/^\/vps\/([^/]+)(?:\/([a-z]+))?$/, () => import("./vps.js")],
];
const MENU = [["#/", "VPSs"], ["#/new", "New VPS"], ["#/events", "Events"]];

const content = document.getElementById("content");
let leave;

async function show() {
  const path = location.hash.slice(1) || "/";
  leave?.abort();
  leave = new AbortController();
  for (const link of document.querySelectorAll("#menu a")) {
    if (link.getAttribute("href") === `#${path}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const [page, found] = PAGES.map(([form, load]) => [load, form.exec(path)]).find(([, match]) => match) ?? [];
  const place = h("div");
  try {
    if (!page) throw new Error("There is no such page.");
    const { default: render } = await page();
    // A page stops what it does again and again when this signal comes.
    await render(place, leave.signal, ...found.slice(1).map((part) => part && decodeURIComponent(part)));
  } catch (error) {
    if (error instanceof Refused && error.code === 403 && !(await isTrusted())) return logIn();
    place.replaceChildren(h("p", { className: "card" }, error.message));
  }
  content.replaceChildren(place);
  document.title = `${place.querySelector("h1")?.textContent ?? "condo"} – condo`;
  content.focus({ preventScroll: true });
}

async function isTrusted() { return (await get("/1.0")).auth === "trusted"; }

function logIn() {
  document.getElementById("menu").replaceChildren();
  const used = location.hash === "#/used";
  content.replaceChildren(h("div", { className: "card" },
    h("h1", {}, "Log in"),
    used && h("p", { role: "alert" }, "This link was used already, or is older than ten minutes."),
    h("p", {}, "Print a link on the host, and open it here. It is good for one browser:"),
    h("pre", {}, "condo ui"),
    h("p", { className: "quiet" }, "A browser with a client certificate that is trusted (condo-server trust) needs none.")));
}

async function menu() {
  const projects = await get("/1.0/projects?recursion=1");
  const names = projects.map((project) => project.name);
  if (names.length > 0 && !names.includes(currentProject())) chooseProject(names[0]);
  const select = options(h("select", { ariaLabel: "Project", onchange: () => { chooseProject(select.value); location.reload(); } }),
    names.map((name) => [name]), currentProject());
  const out = h("form", { method: "post", action: "logout", onsubmit: logOut }, h("button", {}, "Log out"));
  document.getElementById("menu").replaceChildren(
    ...MENU.map(([href, text]) => h("a", { href }, text)),
    h("div", { className: "end" }, names.length > 1 && select, out));
}

// By a request of our own: forms do not say where they come from in all browsers.
async function logOut(event) {
  event.preventDefault();
  await fetch("logout", { method: "POST" });
  location.replace("./");
  location.reload();
}

async function start() {
  try {
    if (!(await isTrusted())) return logIn();
    await menu();
  } catch (error) {
    return content.replaceChildren(h("p", { className: "card" }, error.message));
  }
  if (location.hash === "#/used") location.hash = "#/";
  listen((text) => note(text, true));
  addEventListener("hashchange", show);
  return show();
}

start();
