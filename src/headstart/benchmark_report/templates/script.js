
// A table's rows that hold the typed words and the chosen values.
for (const form of document.querySelectorAll("form.filters")) {
  const table = document.getElementById(form.dataset.table), count = form.querySelector("output");
  const apply = () => {
    const typed = form.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = [...form.querySelectorAll("select")].filter((one) => one.value).map((one) => [Number(one.dataset.column), one.value]);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(typed.every((word) => text.includes(word)) && chosen.every(([column, value]) => row.cells[column].dataset.text === value));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${table.tBodies[0].rows.length} rows`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

// One of several panels at a time.
for (const box of document.querySelectorAll("[data-panels]")) {
  const select = box.querySelector("select");
  const show = () => { for (const panel of box.querySelectorAll("[data-panel]")) panel.hidden = panel.dataset.panel !== select.value; };
  select.addEventListener("change", show);
  show();
}
