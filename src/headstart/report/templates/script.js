"use strict";
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const stored = (value) => { try { return value ? localStorage.setItem("headstart-theme", value) : localStorage.getItem("headstart-theme"); } catch { return null; } };
const theme = () => root.dataset.theme || (dark.matches ? "dark" : "light");
const button = document.getElementById("theme");
const say = () => { button.textContent = theme() === "dark" ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${button.textContent.toLowerCase()} colours`); };
if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
button.addEventListener("click", () => { root.dataset.theme = theme() === "dark" ? "light" : "dark"; stored(root.dataset.theme); say(); });
dark.addEventListener("change", say);
say();

const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
const compare = (a, b) => {
  if (a === "" || b === "") return (a === "") - (b === "");
  const difference = Number(a) - Number(b);
  return Number.isNaN(difference) ? a.localeCompare(b) : difference;
};
for (const head of document.querySelectorAll("table.sortable th button")) {
  head.addEventListener("click", () => {
    const cell = head.closest("th"), table = cell.closest("table"), body = table.tBodies[0];
    const down = cell.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    const known = [], unknown = [];
    for (const row of body.rows) (key(row, cell.cellIndex) === "" ? unknown : known).push(row);
    known.sort((a, b) => (down ? -1 : 1) * compare(key(a, cell.cellIndex), key(b, cell.cellIndex)));
    body.append(...known, ...unknown);
  });
}
addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details")) fold.open = true; });
