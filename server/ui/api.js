// Requests to the API, as every client of it makes them.

let project = sessionStorage.getItem("project") ?? "default";

export function currentProject() { return project; }

export function chooseProject(name) {
  project = name;
  sessionStorage.setItem("project", name);
}

function address(path) {
  const url = new URL(path, location.origin);
  if (!url.searchParams.has("project")) url.searchParams.set("project", project);
  return url;
}

export class Refused extends Error {
  constructor(code, text) { super(text); this.code = code; }
}

const TRIES = 3;
const PAUSE = 500;

// A browser gives up what is under way when an address of its machine changes, as on a host whose VPSs come and go. What only reads can be
// asked again.
async function reach(path, options) {
  for (let left = options.method === "GET" ? TRIES : 1; ; left -= 1) {
    try {
      const answer = await fetch(address(path), options);
      return { said: await answer.json(), mark: answer.headers.get("ETag") };
    } catch (error) {
      if (left === 1) throw error;
    }
    await new Promise((resolve) => { setTimeout(resolve, PAUSE); });
  }
}

async function request(method, path, body, headers = {}) {
  const answer = await reach(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.said.type === "error") throw new Refused(answer.said.error_code, answer.said.error);
  return answer;
}

export async function get(path) { return (await request("GET", path)).said.metadata; }

// Does something, and waits for the end of what goes on in the background.
export async function ask(method, path, body, headers) {
  const { said } = await request(method, path, body, headers);
  if (said.type !== "async") return said.metadata;
  const ended = await get(`${said.operation}/wait`);
  if (ended.status_code !== 200) throw new Refused(ended.status_code, ended.err || ended.status);
  return ended;
}

// Begins something that goes on over websockets.
export async function begin(path, body) { return (await request("POST", path, body)).said.metadata; }

const CHANGED = 412;

// Reads an object, changes it, and writes it back; again where somebody else has changed it meanwhile.
export async function change(path, work) {
  for (let left = TRIES; ; left -= 1) {
    const { said, mark } = await request("GET", path);
    work(said.metadata);
    try {
      return await ask("PUT", path, said.metadata, mark ? { "If-Match": mark } : {});
    } catch (error) {
      if (error.code !== CHANGED || left === 1) throw error;
    }
  }
}

export function socket(path) {
  const url = address(path);
  url.protocol = url.protocol.replace("http", "ws");
  return new WebSocket(url);
}

export const instance = (name) => `/1.0/instances/${encodeURIComponent(name)}`;

export async function power(name, action, force = false) {
  return ask("PUT", `${instance(name)}/state`, { action, force, timeout: 30 });
}
