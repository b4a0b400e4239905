"use strict";
// Headings that sort a table: a press on one, or its name behind # in the address. How rows are sorted is up to the page.
const sortable = (table, sort) => {
  const heads = [...table.tHead.rows[0].cells];
  const press = (column) => {
    const head = heads[column];
    // What is most comes first, and names as in the alphabet; once more turns it round.
    const isNumber = head.classList.contains("n");
    const first = isNumber ? "descending" : "ascending";
    const other = isNumber ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach((every) => every.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    sort(column, order);
  };
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => press(column));
    if (button && location.hash === "#" + head.id) press(column);
  });
};
