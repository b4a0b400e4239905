// Shows a run while it goes on. What is shown comes from the run, as text, lines and rows: nothing is counted here, and
// whatever a peer has said gets into the page as text alone.
(() => {
  const byId = (id) => document.getElementById(id);
  const svgName = document.querySelector("svg").namespaceURI;

  // A page that stands still for so long has lost the run, whatever its connection says.
  const PATIENCE_MS = 5000;
  const RETRY_MS = 3000;
  const REFRESH_MS = 2000;

  const setText = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };

  const drawn = (name, attributes, text) => {
    const node = document.createElementNS(svgName, name);
    Object.entries(attributes).forEach(([attribute, value]) => node.setAttribute(attribute, value));
    if (text) node.textContent = text;
    return node;
  };

  const draw = (svg, { labels, paths }) => {
    const texts = labels.map(({ x, y, anchor, text }) => drawn("text", { x, y, "text-anchor": anchor }, text));
    svg.replaceChildren(...texts, ...paths.map((path) => drawn("path", path)));
  };

  const picture = (cell) => {
    const isBar = "bar" in cell;
    const shape = isBar ? { viewBox: "0 0 100 10", preserveAspectRatio: "none" } : { viewBox: "0 0 40 10", class: "chart" };
    const svg = drawn("svg", { ...shape, "aria-hidden": "true" });
    svg.append(isBar ? drawn("rect", { height: 10, width: cell.bar }) : drawn("path", { class: cell.line, d: "M0 5H40" }));
    return svg;
  };

  const shown = new WeakMap();

  // A cell is a text, a text that is cut and has a title with all of it, a bar, or the sample of a line.
  const show = (place, cell) => {
    const told = JSON.stringify(cell);
    if (shown.get(place) === told) return;
    shown.set(place, told);
    place.removeAttribute("title");
    if (typeof cell === "string") place.textContent = cell;
    else if ("text" in cell) [place.textContent, place.title] = [cell.text, cell.title];
    else place.replaceChildren(picture(cell));
  };

  // What is there is kept, so that whoever reads or has selected a row does not lose it.
  const fill = (table, rows) => {
    const [heads, body] = [table.tHead.rows[0].cells, table.tBodies[0]];
    rows.forEach((cells, index) => {
      const row = body.rows[index] || body.insertRow();
      cells.forEach((cell, column) => {
        if (!row.cells[column]) {
          const place = document.createElement(column === 0 ? "th" : "td");
          if (column === 0) place.scope = "row";
          place.className = heads[column].className;
          row.append(place);
        }
        show(row.cells[column], cell);
      });
    });
    while (body.rows.length > rows.length) body.deleteRow(-1);
  };

  const state = (name, words) => {
    document.body.dataset.state = name;
    setText(byId("state"), words);
  };

  let heard = Date.now();
  let isOver = false;

  const take = ({ state: words, texts, tables, charts }) => {
    heard = Date.now();
    state("live", words);
    Object.entries(texts).forEach(([id, text]) => setText(byId(id), text));
    Object.entries(tables).forEach(([id, rows]) => fill(byId(id), rows));
    Object.entries(charts).forEach(([id, chart]) => draw(byId(id), chart));
    document.querySelectorAll("[data-unless]").forEach((node) => { node.hidden = byId(node.dataset.unless).textContent === ""; });
  };

  const lose = () => {
    if (isOver || document.body.dataset.state === "lost") return;
    const when = new Date(heard).toLocaleTimeString();
    state("lost", `No connection to the run since ${when}: it was ended, or too many pages watch it. What is shown is from then. Trying again.`);
  };

  const watch = () => {
    const events = new EventSource("events");
    events.addEventListener("message", (event) => take(JSON.parse(event.data)));
    events.addEventListener("end", (event) => {
      const last = JSON.parse(event.data);
      isOver = true;
      events.close();
      take(last);
      state("over", last.state);
      takeSessions(last.sessions);
      byId("find").reset();
      byId("sessions").tHead.querySelectorAll("[aria-sort]").forEach((head) => head.removeAttribute("aria-sort"));
      byId("by-state").setAttribute("aria-sort", "ascending");
      byId("find").querySelectorAll("input, button").forEach((node) => { node.disabled = true; });
      byId("sessions").tHead.querySelectorAll("button").forEach((node) => { node.replaceWith(node.textContent); });
    });
    events.addEventListener("error", () => {
      lose();
      if (events.readyState === EventSource.CLOSED && !isOver) setTimeout(watch, RETRY_MS);
    });
  };

  const query = { q: "", page: 1, sort: "", order: "" };
  let asking = false;
  let asked = "";

  const takeSessions = ({ rows, told, found, page, pages }) => {
    fill(byId("sessions"), rows);
    setText(byId("sessions-told"), told);
    setText(byId("found"), found);
    query.page = page;
    byId("before").disabled = page <= 1;
    byId("next").disabled = page >= pages;
  };

  const refresh = async () => {
    if (asking || isOver) return;
    asking = true;
    asked = new URLSearchParams(query).toString();
    try {
      const answer = await fetch(`sessions?${asked}`);
      const sessions = answer.ok ? await answer.json() : null;
      if (sessions && !isOver && asked === new URLSearchParams(query).toString()) takeSessions(sessions);
    } catch {
      // The stream of events tells that the run is gone.
    }
    asking = false;
    if (asked !== new URLSearchParams(query).toString()) refresh();
  };

  let typed;
  byId("q").addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => {
      [query.q, query.page] = [byId("q").value, 1];
      refresh();
    }, 200);
  });
  byId("find").addEventListener("submit", (event) => event.preventDefault());
  const turn = (pages) => {
    query.page += pages;
    refresh();
  };
  byId("before").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  sortable(byId("sessions"), (column, order) => {
    const head = byId("sessions").tHead.rows[0].cells[column];
    [query.sort, query.order, query.page] = [head.id.replace("by-", ""), order, 1];
    refresh();
  });

  watch();
  refresh();
  setInterval(() => { if (Date.now() - heard > PATIENCE_MS) lose(); }, 1000);
  // Nobody sees the table of a page behind others.
  const refreshSeen = () => { if (!document.hidden) refresh(); };
  setInterval(refreshSeen, REFRESH_MS);
  document.addEventListener("visibilitychange", refreshSeen);
})();
