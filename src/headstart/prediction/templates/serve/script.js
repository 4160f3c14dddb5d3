
const drop = document.getElementById("drop");
if (drop) {
  const file = document.getElementById("file"), status = document.getElementById("status");
  const report = document.getElementById("report"), download = document.getElementById("download");
  const say = (text, failed) => { status.textContent = text; status.className = `lead ${failed ? "failed" : ""}`; };
  const send = async (scan) => {
    if (!scan) return;
    report.hidden = download.hidden = true;
    if (scan.size > Number(drop.dataset.most)) { say("Not predicted: the file is too large for this page; use headstart predict.", true); return; }
    say(`Predicting ${scan.name} (${(scan.size / 2 ** 20).toFixed(1)} MB) …`, false);
    try {
      const reply = await fetch(`/predict?explain=${encodeURIComponent(document.getElementById("explain").value)}`, { method: "POST", body: scan });
      const found = await reply.json();
      if (!reply.ok) { say(`Not predicted: ${found.error}`, true); return; }
      say(found.answer, found.verdict === "refused");
      report.src = download.href = found.report;
      report.hidden = download.hidden = false;
    } catch { say("Not predicted: the file was refused, or headstart is no longer running.", true); }
  };
  file.addEventListener("change", () => send(file.files[0]));
  for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("over"); });
  drop.addEventListener("drop", (event) => send(event.dataTransfer.files[0]));
}
