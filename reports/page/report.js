// Tables are complete without this; it sorts them by a click (or Enter) on a heading, and filters the rows of long ones.
"use strict";
const FILTER_FROM = 12;
let filters = 0;

function sortable(table) {
  const body = table.tBodies[0];
  table.tHead.querySelectorAll("th").forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(head.querySelector("span"));
    head.prepend(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const key = (row) => row.cells[index].dataset.sort;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        const order = head.classList.contains("num") ? Number(x) - Number(y) : x.localeCompare(y);
        return descending ? -order : order;
      });
      body.append(...rows);
    });
  });
}

function filterable(table) {
  const rows = [...table.tBodies[0].rows];
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("output");
  label.className = "filter";
  input.type = "search";
  input.id = `filter-${++filters}`;
  count.htmlFor = input.id;
  label.append("Rows that contain", input, count);
  table.closest(".scroll").before(label);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = rows.filter((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      return !row.hidden;
    });
    count.value = words.length ? `${shown.length} of ${rows.length}` : "";
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  sortable(table);
  if (table.tBodies[0].rows.length >= FILTER_FROM) filterable(table);
}
for (const link of document.querySelectorAll('a[href^="#def-"]')) {
  link.addEventListener("click", () => document.querySelector(link.getAttribute("href")).setAttribute("tabindex", "-1"));
}
