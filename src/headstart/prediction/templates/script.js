
const view = document.getElementById("viewer");
if (view) {
  const bytes = (text) => text && Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const [X, Y, Z] = view.dataset.shape.split(",").map(Number), size = [X, Y, Z];
  const brain = bytes(view.dataset.brain), outline = bytes(view.dataset.outline), map = bytes(view.dataset.map);
  const overlay = document.getElementById("overlay");
  const across = { 0: [1, 2], 1: [0, 2], 2: [0, 1] };
  const at = (axis, slice, column, row) => {
    const place = [0, 0, 0];
    place[axis] = slice; place[across[axis][0]] = column; place[across[axis][1]] = row;
    return (place[0] * Y + place[1]) * Z + place[2];
  };
  const edge = (axis, slice, c, r, width, height) => outline[at(axis, slice, c, r)] &&
    [[1, 0], [-1, 0], [0, 1], [0, -1]].some(([a, b]) => c + a < 0 || r + b < 0 || c + a >= width || r + b >= height || !outline[at(axis, slice, c + a, r + b)]);
  const colour = (index, onEdge) => {
    const grey = brain[index], shown = map && (!overlay || overlay.checked) ? (map[index] - 128) / 127 : 0, share = Math.min(Math.abs(shown), 1) * 0.85;
    const tint = shown > 0 ? [255, 96, 32] : [48, 128, 255];
    const mixed = tint.map((value) => grey * (1 - share) + value * share);
    return onEdge ? mixed.map((value, i) => value * 0.5 + [255, 140, 0][i] * 0.5) : mixed;
  };
  const paint = (canvas, slice) => {
    const axis = Number(canvas.dataset.axis), [width, height] = across[axis].map((i) => size[i]), side = Math.max(width, height);
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d"), picture = context.createImageData(width, height);
    for (let r = 0; r < height; r++) for (let c = 0; c < width; c++) {
      const values = colour(at(axis, slice, c, r), edge(axis, slice, c, r, width, height));
      picture.data.set([...values, 255], 4 * ((height - 1 - r) * width + c));
    }
    context.fillRect(0, 0, side, side);
    context.putImageData(picture, (side - width) >> 1, (side - height) >> 1);
  };
  const canvases = [...view.querySelectorAll("canvas")];
  const draw = () => canvases.forEach((canvas) => paint(canvas, Number(view.querySelector(`input[data-axis="${canvas.dataset.axis}"]`).value)));
  for (const slider of view.querySelectorAll("input")) {
    slider.max = size[slider.dataset.axis] - 1;
    slider.value = size[slider.dataset.axis] >> 1;
    slider.addEventListener("input", draw);
  }
  overlay?.addEventListener("change", draw);
  draw();
}
