// The page works without this. It saves without leaving the page, so that nothing is lost while the server or
// the database is away; it answers a scale by a digit; it shows the full size in place; it marks the exact point.
"use strict";

const form = document.getElementById("rating");
if (form) {
  saving(form);
  digits(form);
  fullSize(document.querySelector("a.full"));
  document.querySelectorAll(".grid").forEach(points);
}

function saving(form) {
  const button = form.querySelector("button.main");
  const said = document.getElementById("said");
  let busy = false;

  async function send(again) {
    const response = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
    });
    const answer = await response.json();
    if (response.ok) return location.assign(answer.next);
    if (answer.csrf && response.status === 403 && !again) {
      form.elements.csrf.value = answer.csrf;
      return send(true);
    }
    if (answer.form) form.elements.form.value = answer.form; // saving once more is meant
    throw new Error(answer.error);
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    button.setAttribute("aria-busy", "true");
    said.replaceChildren();
    const slow = setTimeout(() => tell(form.dataset.saving), 1500);
    try {
      await send(false);
    } catch (error) {
      const own = error instanceof TypeError || error instanceof SyntaxError;
      tell(own || !error.message ? form.dataset.unreached : error.message);
      busy = false;
      button.removeAttribute("aria-busy");
    } finally {
      clearTimeout(slow);
    }
  });

  function tell(text) {
    const line = document.createElement("p");
    line.textContent = text;
    said.replaceChildren(line);
    said.scrollIntoView({ block: "nearest" });
  }

  // A page that the browser kept for its Back button has an old form: take a new one.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
}

// Digits count only while a scale has the focus.
function digits(form) {
  let typed = ""; // digits of a number that may go on, and the answer that they stand for so far
  let pending = null;
  form.addEventListener("keydown", (event) => {
    const scale = event.target.closest("[data-kind=scale], [data-kind=choice]");
    if (!scale || !/^[0-9]$/.test(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
    const inputs = [...scale.querySelectorAll("input")];
    const values = scale.dataset.kind === "scale" ? inputs.map((one) => one.value) : inputs.map((_, at) => `${at + 1}`);
    if (event.target !== pending) typed = "";
    typed = values.includes(typed + event.key) ? typed + event.key : event.key;
    const chosen = inputs[values.indexOf(typed)];
    if (!chosen) return;
    event.preventDefault();
    chosen.checked = true;
    chosen.focus();
    pending = chosen;
    if (values.some((value) => value !== typed && value.startsWith(typed))) return;
    typed = "";
    const all = [...form.querySelectorAll("fieldset, .text, button.main")];
    const next = all[all.indexOf(scale) + 1];
    const target = next.matches("button") ? next : next.querySelector("input:checked") || next.querySelector("input, textarea");
    target.focus();
  });
}

function fullSize(link) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const dialog = document.createElement("dialog");
    dialog.setAttribute("aria-label", link.textContent);
    const close = document.createElement("button");
    close.className = "close";
    close.textContent = link.dataset.close;
    const scroll = document.createElement("div");
    scroll.className = "scroll";
    scroll.tabIndex = 0;
    const picture = document.querySelector(".frame img").cloneNode();
    scroll.append(picture);
    dialog.append(close, scroll);
    document.body.append(dialog);
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      link.focus();
    });
    dialog.showModal();
  });
}

// The cells stay, for the keyboard; a click is kept to the exact place, and arrows move in both directions.
function points(grid) {
  const cells = [...grid.querySelectorAll("input")];
  const side = Number(grid.dataset.cells);
  const marker = document.createElement("div");
  marker.className = "marker";
  grid.parentElement.append(marker);
  grid.parentElement.classList.add("exact");

  function show() {
    const chosen = cells.find((one) => one.checked);
    marker.hidden = !chosen;
    if (!chosen) return;
    const [x, y] = chosen.value.split(" ").map(Number);
    marker.style.left = `${100 * x}%`;
    marker.style.top = `${100 * y}%`;
  }

  grid.addEventListener("click", (event) => {
    const box = grid.getBoundingClientRect();
    const share = (at, from, length) => Math.min(Math.max((at - from) / length, 0), 1);
    const x = share(event.clientX, box.left, box.width);
    const y = share(event.clientY, box.top, box.height);
    const chosen = event.target.closest("label")?.querySelector("input");
    if (!chosen || !event.detail) return;
    chosen.value = `${x.toFixed(4)} ${y.toFixed(4)}`;
    chosen.checked = true;
    show();
  });
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const at = cells.indexOf(event.target);
    if (!step || at < 0) return;
    event.preventDefault();
    const column = Math.min(Math.max((at % side) + step[0], 0), side - 1);
    const row = Math.min(Math.max(Math.floor(at / side) + step[1], 0), side - 1);
    const chosen = cells[row * side + column];
    chosen.value = `${((column + 0.5) / side).toFixed(4)} ${((row + 0.5) / side).toFixed(4)}`;
    chosen.checked = true;
    chosen.focus();
    show();
  });
  document.addEventListener("change", show);
  show();
}
