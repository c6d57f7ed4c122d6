
"use strict";
const key = (row, at) => {
  const cell = row.cells[at];
  if (!cell.classList.contains("number")) return cell.textContent.trim();
  return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
};
const before = (a, b) => typeof a === "number" ? a - b : a.localeCompare(b, undefined, {numeric: true});
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map(row => [key(row, head.cellIndex), row]);
    const known = rows.filter(pair => pair[0] !== null), unknown = rows.filter(pair => pair[0] === null);
    known.sort((a, b) => down ? before(b[0], a[0]) : before(a[0], b[0]));
    body.append(...known.concat(unknown).map(pair => pair[1]));
  });
}
for (const input of document.querySelectorAll("[data-filter]")) {
  const section = input.closest("section"), rows = [...section.querySelectorAll("tbody tr")];
  const texts = rows.map(row => row.textContent.toLowerCase());
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => { row.hidden = !wanted.every(word => texts[i].includes(word)); shown += !row.hidden; });
    section.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => { d.open = true; }));
