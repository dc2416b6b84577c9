"use strict";
document.querySelector("#theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.theme = getComputedStyle(root).colorScheme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("maskprism-theme", root.dataset.theme);
  } catch {
    // a page that may keep nothing forgets the choice
  }
});

// Under a server, what the report is about is in its gallery.
const gallery = document.querySelector("meta[name=maskprism-gallery]")?.getAttribute("content");
if (gallery) {
  for (const link of document.querySelectorAll("a[data-gallery]")) {
    const inside = link.getAttribute("href")?.startsWith("#");
    if (!inside) link.href = gallery + link.dataset.gallery;
    link.hidden = false;
  }
}

// Press a heading to sort its table by that column; press again to turn the order round.
for (const button of document.querySelectorAll("table.sortable thead button")) {
  const heading = button.closest("th");
  button.addEventListener("click", () => {
    sort(heading, heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
  });
}

// Links to a table that they are about a column of sort it.
for (const link of document.querySelectorAll("a[data-sort]")) {
  link.addEventListener("click", () => {
    const headings = [...document.querySelectorAll(`${link.hash} table.sortable th`)];
    const heading = headings.find((one) => one.textContent === link.dataset.sort);
    if (heading) sort(heading, link.dataset.order);
  });
}

function sort(heading, order) {
  const table = heading.closest("table");
  const column = heading.cellIndex;
  for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [row, keyOf(row.cells[column])]);
  const sign = order === "ascending" ? 1 : -1;
  rows.sort(([, a], [, b]) => compare(a, b, sign));
  body.append(...rows.map(([row]) => row));
  table.parentElement.scrollTop = 0;
}

function keyOf(cell) {
  const text = cell.textContent.trim();
  const number = Number(text.replace("−", "-").replace("%", ""));
  return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null); // what is not known comes last
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b));
}
