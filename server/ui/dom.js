// Elements, dialogs and notes: the little that pages need beside the browser itself.

// An element. Properties that begin with `on` listen, `data` and `aria` hold more of theirs.
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

// A table whose cells say what they are where there is no room for a head.
export function table(heads, rows, id) {
  const body = rows.map((cells) => h("tr", {}, cells.map((cell, i) => td(heads[i], cell))));
  return h("table", { className: "cards", id },
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, body));
}

export function td(head, content) {
  const cell = h("td", { className: head ? "" : "act" }, content ?? "");
  cell.dataset.label = head;
  return cell;
}

export function field(label, input, hint) {
  return h("label", {}, label, hint && h("small", {}, hint), input);
}

export function check(label, input) {
  return h("label", { className: "check" }, input, label);
}

export function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => h("option", { value, selected: value === chosen }, text ?? value)));
  return select;
}

// Asks before something is lost; whether it may go on.
export function sure(question, action) {
  return new Promise((answer) => {
    const dialog = h("dialog", { onclose: () => { answer(dialog.returnValue === "yes"); dialog.remove(); } },
      h("form", { method: "dialog" },
        h("p", {}, question),
        h("div", { className: "bar" },
          h("button", { value: "no" }, "Cancel"),
          h("button", { value: "yes", className: "bad" }, action))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function note(text, bad = false) {
  const note = h("div", { className: bad ? "note bad" : "note" }, text);
  document.getElementById("notes").append(note);
  setTimeout(() => note.remove(), bad ? 12000 : 5000);
}

// Runs something of a button, which is off meanwhile; what goes wrong is said.
export async function doing(button, work, done) {
  button.disabled = true;
  try {
    const result = await work();
    if (done) note(done);
    return result;
  } catch (error) {
    note(error.message, true);
    return undefined;
  } finally {
    button.disabled = false;
  }
}

export function button(text, work, properties = {}) {
  const { done, ...rest } = properties;
  return h("button", { type: "button", ...rest, onclick: (event) => doing(event.currentTarget, work, done) }, text);
}

// A form whose button does something: by a click, or by Enter in a field.
export function form(submit, work, properties, ...children) {
  const { done, ...rest } = properties;
  return h("form", { ...rest, onsubmit: (event) => { event.preventDefault(); doing(submit, work, done?.()); } }, ...children, submit);
}

// Brings a style sheet in, once.
export function stylesheet(href) {
  if (!document.head.querySelector(`link[href="${href}"]`)) document.head.append(h("link", { rel: "stylesheet", href }));
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(n) {
  let unit = 0;
  while (n >= 1024 && unit < UNITS.length - 1) { n /= 1024; unit += 1; }
  return `${n >= 100 || unit === 0 ? Math.round(n) : n.toFixed(1)} ${UNITS[unit]}`;
}

// Bytes of a size as the API writes it, such as 512MiB.
export function size(text) {
  const found = /^([0-9.]+)\s*([KMGT]?)(i?)B?$/.exec(text ?? "");
  if (!found) return 0;
  return Number(found[1]) * (found[3] ? 1024 : 1000) ** " KMGT".indexOf(found[2] || " ");
}
