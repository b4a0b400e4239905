// Sorts the table of sessions, and shows its later rows.
(() => {
  const table = document.getElementById("sessions");
  const body = table.tBodies[0];

  const sort = (column, order) => {
    const isNumber = table.tHead.rows[0].cells[column].classList.contains("n");
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
  };

  const all = document.getElementById("show-all");
  if (all) all.addEventListener("click", () => {
    table.classList.remove("short");
    all.remove();
  });

  sortable(table, sort);
})();
