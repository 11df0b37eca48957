"use strict";

// The theme: the system's until the button is pressed.
const root = document.documentElement;
const button = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");

function remembered(value) {
  try {
    if (value) localStorage.setItem("exml-report-theme", value);
    return localStorage.getItem("exml-report-theme");
  } catch {
    return null; // some browsers keep nothing for files
  }
}

function showTheme(theme) {
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  const isDark = (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  button.setAttribute("aria-pressed", String(isDark));
}

button.hidden = false;
button.addEventListener("click", () => {
  const theme = button.getAttribute("aria-pressed") === "true" ? "light" : "dark";
  remembered(theme);
  showTheme(theme);
});
system.addEventListener("change", () => showTheme(null));
showTheme(remembered());

// Tables: a heading sorts upwards, downwards, then as it was; rows without a value come last.
function sortKey(row, column) {
  const cell = row.cells[column];
  if (!cell) return null;
  if (cell.dataset.sort !== undefined) return Number(cell.dataset.sort);
  return cell.classList.contains("num") || cell.classList.contains("mid") ? null : cell.textContent.trim();
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  for (const heading of table.querySelectorAll("th[aria-sort]")) {
    heading.firstElementChild.addEventListener("click", (event) => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[heading.getAttribute("aria-sort")];
      for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", next);
      const column = Number(event.currentTarget.dataset.column);
      const side = next === "descending" ? -1 : 1;
      const rows = next === "none" ? original : original.toSorted((first, second) => {
        const a = sortKey(first, column);
        const b = sortKey(second, column);
        if (a === null || b === null) return (a === null) - (b === null);
        return side * compare(a, b);
      });
      body.append(...rows);
    });
  }
}

// Charts: the pointer or the slider chooses a place; the legend tells the values there.
for (const figure of document.querySelectorAll("figure.chart")) {
  const places = figure.dataset.places.split("|");
  const svg = figure.querySelector(".plot svg");
  const cursor = svg.querySelector(".cursor");
  const slider = figure.querySelector(".slider");
  const input = slider.querySelector("input");
  const place = figure.querySelector(".place");
  const axis = figure.dataset.axis;
  const rows = [...figure.querySelectorAll(".legend tr")];
  const left = Number(svg.dataset.left);
  const right = Number(svg.dataset.right);

  function show(index) {
    const x = left + ((right - left) * index) / (places.length - 1);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    input.value = index;
    slider.querySelector("output").textContent = places[index];
    place.textContent = `${axis}: ${places[index]}`;
    const words = rows.map((row) => {
      const value = row.dataset.values.split("|")[index];
      row.cells[1].textContent = value;
      return `${row.cells[0].textContent} ${value}`;
    });
    input.setAttribute("aria-valuetext", `${axis}: ${places[index]}; ${words.join(", ")}`);
  }

  slider.hidden = false;
  input.addEventListener("input", () => show(Number(input.value)));
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const index = Math.round(((x - left) / (right - left)) * (places.length - 1));
    show(Math.min(Math.max(index, 0), places.length - 1));
  });
  show(places.length - 1);
}

// What is linked to is opened; on paper everything is.
function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const details of closed) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of closed) details.open = false;
});
