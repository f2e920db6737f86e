// What happens on the host, for as long as the page is open.

import { socket } from "./api.js";

const KEPT = 500;
const AGAIN = 3000;
const listeners = new Set();

// The last events, newest first.
export const kept = [];

// Calls `heard` for each event until the signal comes.
export function follow(signal, heard) {
  listeners.add(heard);
  signal.addEventListener("abort", () => listeners.delete(heard));
}

export function listen(lost) {
  const events = socket("/1.0/events?type=lifecycle");
  events.onmessage = (message) => {
    const { timestamp, metadata } = JSON.parse(message.data);
    const event = { time: new Date(timestamp), action: metadata.action, source: metadata.source, context: metadata.context };
    kept.unshift(event);
    kept.length = Math.min(kept.length, KEPT);
    for (const heard of listeners) heard(event);
  };
  let said = false;
  events.onclose = () => {
    if (!said) lost("The server does not answer: what is shown may be old.");
    said = true;
    setTimeout(() => listen(() => {}), AGAIN);
  };
}
