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
addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details:not([data-long])")) fold.open = true; });

// Slices through a brain: sliders move them, a click on one goes there in the others.
for (const view of document.querySelectorAll(".viewer")) {
  const bytes = (text) => text && Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const [X, Y, Z] = view.dataset.shape.split(",").map(Number), size = [X, Y, Z];
  const brain = bytes(view.dataset.brain), outline = bytes(view.dataset.outline);
  const choice = view.querySelector("select"), maps = [...view.querySelectorAll("data")].map((one) => bytes(one.value));
  const across = { 0: [1, 2], 1: [0, 2], 2: [0, 1] };
  const at = (axis, slice, column, row) => {
    const place = [0, 0, 0];
    place[axis] = slice; place[across[axis][0]] = column; place[across[axis][1]] = row;
    return (place[0] * Y + place[1]) * Z + place[2];
  };
  const edge = (axis, slice, c, r, width, height) => outline && outline[at(axis, slice, c, r)] &&
    [[1, 0], [-1, 0], [0, 1], [0, -1]].some(([a, b]) => c + a < 0 || r + b < 0 || c + a >= width || r + b >= height || !outline[at(axis, slice, c + a, r + b)]);
  const colour = (map, index, onEdge) => {
    const grey = brain[index], shown = map ? (map[index] - 128) / 127 : 0, share = Math.min(Math.abs(shown), 1) * 0.85;
    const tint = shown > 0 ? [255, 96, 32] : [48, 128, 255];
    const mixed = tint.map((value) => grey * (1 - share) + value * share);
    return onEdge ? mixed.map((value, i) => value * 0.5 + [255, 140, 0][i] * 0.5) : mixed;
  };
  const paint = (canvas, slice) => {
    const map = choice && choice.value !== "" ? maps[choice.value] : null;
    const axis = Number(canvas.dataset.axis), [width, height] = across[axis].map((i) => size[i]), side = Math.max(width, height);
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d"), picture = context.createImageData(width, height);
    for (let r = 0; r < height; r++) for (let c = 0; c < width; c++) {
      const values = colour(map, at(axis, slice, c, r), edge(axis, slice, c, r, width, height));
      picture.data.set([...values, 255], 4 * ((height - 1 - r) * width + c));
    }
    context.fillRect(0, 0, side, side);
    context.putImageData(picture, (side - width) >> 1, (side - height) >> 1);
  };
  const canvases = [...view.querySelectorAll("canvas")];
  const slider = (axis) => view.querySelector(`input[data-axis="${axis}"]`);
  const draw = () => canvases.forEach((canvas) => paint(canvas, Number(slider(canvas.dataset.axis).value)));
  const go = (axis, place) => { slider(axis).value = place; };
  for (const canvas of canvases) canvas.addEventListener("click", (event) => {
    const [first, second] = across[canvas.dataset.axis], [width, height] = [size[first], size[second]], side = canvas.width;
    go(first, Math.floor(event.offsetX / canvas.clientWidth * side) - ((side - width) >> 1));
    go(second, height - 1 - Math.floor(event.offsetY / canvas.clientHeight * side) + ((side - height) >> 1));
    draw();
  });
  for (const one of view.querySelectorAll("input")) {
    one.max = size[one.dataset.axis] - 1;
    one.value = size[one.dataset.axis] >> 1;
    one.addEventListener("input", draw);
  }
  choice?.addEventListener("change", draw);
  draw();
}
