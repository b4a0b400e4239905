"use strict";
// Sorts the table of sessions: a press on a heading, or the heading's name behind # in the address. Shows its later rows.
(() => {
  const table = document.getElementById("sessions");
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];

  const sort = (column) => {
    const head = heads[column];
    const isNumber = head.classList.contains("n");
    // What is most comes first, and names as in the alphabet; once more turns it round.
    const first = isNumber ? "descending" : "ascending";
    const other = isNumber ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row, place) => {
      const text = row.cells[column].textContent;
      return { row, place, text, value: isNumber && text !== "" ? Number(text) : text };
    });
    rows.sort((a, b) => {
      // Nothing is last, whichever way.
      if (a.text === "" || b.text === "") return (a.text === "") - (b.text === "") || a.place - b.place;
      return sign * ((a.value > b.value) - (a.value < b.value)) || a.place - b.place;
    });
    body.replaceChildren(...rows.map((entry) => entry.row));
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
  };

  const all = document.getElementById("show-all");
  if (all) all.addEventListener("click", () => {
    table.classList.remove("short");
    all.remove();
  });

  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => sort(column));
    if (button && location.hash === "#" + head.id) sort(column);
  });
})();
