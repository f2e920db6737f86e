// A shell inside, on a terminal.

import { begin, get, instance, socket } from "./api.js";
import { button, h, stylesheet } from "./dom.js";

const SHELL = ["sh", "-c", "exec \"$(command -v bash || echo sh)\" -l"];

export default async function terminal(place, signal, name) {
  let Terminal, FitAddon;
  try {
    [{ Terminal }, { FitAddon }] = await Promise.all([import("./vendor/xterm.mjs"), import("./vendor/addon-fit.mjs")]);
  } catch {
    place.append(h("div", { className: "card" },
      h("h2", {}, "No terminal"),
      h("p", {}, "This condo-server was built without one. On the machine that builds it, ", h("code", {}, "make web"),
        " fetches what it needs; build it again after that."),
      h("p", {}, "On the host: ", h("code", {}, `condo shell ${name}`))));
    return;
  }
  if ((await get(instance(name))).status !== "Running") {
    place.append(h("p", { className: "card" }, "It does not run: start it first."));
    return;
  }
  stylesheet("vendor/xterm.css");
  const screen = h("div", { className: "screen" });
  const again = button("Connect again", () => connect(), { hidden: true });
  place.append(screen, h("p", {}, again));
  const term = new Terminal({ cursorBlink: true, fontSize: 14, screenReaderMode: true });
  const fit = new FitAddon();
  term.loadAddon(fit);
  // Once the page is in its place: before that the screen has no size.
  requestAnimationFrame(() => {
    term.open(screen);
    fit.fit();
    connect().catch((error) => term.writeln(error.message));
  });

  async function connect() {
    again.hidden = true;
    const operation = await begin(`${instance(name)}/exec`, {
      command: SHELL, interactive: true, "wait-for-websocket": true, environment: { TERM: "xterm-256color" },
      width: term.cols, height: term.rows,
    });
    const stream = (fd) => socket(`/1.0/operations/${operation.id}/websocket?secret=${operation.metadata.fds[fd]}`);
    const [data, control] = [stream("0"), stream("control")];
    data.binaryType = "arraybuffer";
    const encoder = new TextEncoder();
    const listeners = [
      term.onData((text) => data.readyState === WebSocket.OPEN && data.send(encoder.encode(text))),
      term.onResize(({ cols, rows }) => control.readyState === WebSocket.OPEN && control.send(JSON.stringify({
        command: "window-resize", args: { width: String(cols), height: String(rows) },
      }))),
    ];
    // An empty text frame is the end of what the program says.
    data.onmessage = (message) => { if (typeof message.data !== "string") term.write(new Uint8Array(message.data)); };
    data.onclose = () => {
      listeners.forEach((listener) => listener.dispose());
      control.close();
      if (signal.aborted) return;
      term.writeln("\r\n[ended]");
      again.hidden = false;
      again.focus();
    };
    signal.addEventListener("abort", () => { data.close(); control.close(); });
    term.focus();
  }

  const resize = new ResizeObserver(() => { if (term.element) fit.fit(); });
  resize.observe(screen);
  signal.addEventListener("abort", () => { resize.disconnect(); term.dispose(); });
}
