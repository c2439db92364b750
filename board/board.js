"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  const body = document.body;

  // Warn if the page is old: then its job may have stopped.
  const age = () => {
    const seconds = Date.now() / 1000 - Number(body.dataset.made);
    const stale = seconds > Number(body.dataset.maxAge);
    const [amount, unit] = seconds < 7200 ? [seconds / 60, "minutes"] : seconds < 172800 ? [seconds / 3600, "hours"] : [seconds / 86400, "days"];
    const text = stale ? `This page is ${Math.round(amount)} ${unit} old. Check that the job that makes it still runs.` : "";
    element("top").classList.toggle("stale", stale);
    if (element("stale").textContent !== text) element("stale").textContent = text;
  };
  age();
  setInterval(age, 30000);
  if (!element("filter")) return;

  const fields = ["q", "host", "state", "sort"];
  const data = JSON.parse(element("data").textContent);
  const columns = [...document.querySelectorAll(".column")].map((section) => ({
    section,
    state: section.dataset.state,
    list: section.querySelector("ul"),
    count: section.querySelector(".count"),
    cards: [...section.querySelectorAll(".card")].map((card) => ({
      card,
      host: card.dataset.host,
      name: card.dataset.name,
      due: Number(card.dataset.due),
      expiry: Number(card.dataset.expiry),
      age: Number(card.dataset.age),
      text: `${card.dataset.host} ${card.dataset.name} ${card.querySelector(".names")?.textContent ?? ""}`.toLowerCase(),
    })),
  }));
  const rows = data.rows.map((cells) => ({ cells, host: cells[1], text: `${cells[1]} ${cells[2]} ${cells[3]}`.toLowerCase() }));
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const orders = {
    "": (a, b) => a.due - b.due,
    expiry: (a, b) => a.expiry - b.expiry,
    age: (a, b) => a.age - b.age,
    name: (a, b) => compare(a.name, b.name),
    host: (a, b) => compare(a.host, b.host) || compare(a.name, b.name),
  };
  const FEW = 100; // rows of the history that are shown at first
  let sorted = "";
  let all = false;

  const put = (object, key, value) => {
    if (object[key] !== value) object[key] = value;
  };

  const history = (fits) => {
    const found = rows.filter((row) => fits(row.text, row.host));
    const shown = all ? found : found.slice(0, FEW);
    element("history").replaceChildren(
      ...shown.map((row) => {
        const line = document.createElement("tr");
        for (const cell of row.cells) line.insertCell().textContent = cell;
        return line;
      }),
    );
    element("rows").textContent = shown.length < found.length ? `${shown.length} of ${found.length}` : `${found.length}`;
    element("more").hidden = shown.length === found.length;
  };

  const apply = () => {
    const [q, host, state, sort] = fields.map((id) => element(id).value);
    const parts = q.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (text, of) => (host === "" || of === host) && parts.every((part) => text.includes(part));
    let shown = 0;
    for (const column of columns) {
      let count = 0;
      for (const it of column.cards) {
        const hidden = !fits(it.text, it.host);
        put(it.card, "hidden", hidden);
        count += hidden ? 0 : 1;
      }
      put(column.count, "textContent", String(count));
      const wanted = state === "" || state === column.state;
      put(column.section, "hidden", !wanted);
      shown += wanted ? count : 0;
      if (sort !== sorted) column.list.append(...column.cards.sort(orders[sort] ?? orders[""]).map((it) => it.card));
    }
    sorted = sort;
    for (const it of document.querySelectorAll(".host")) it.hidden = !fits(it.dataset.host.toLowerCase(), it.dataset.host);
    const hosts = document.querySelector(".hosts");
    if (hosts) hosts.hidden = !hosts.querySelector(".host:not([hidden])");
    element("shown").textContent = `${shown} certificate${shown === 1 ? "" : "s"}`;
    history(fits);
    const kept = new URLSearchParams(fields.filter((id) => element(id).value).map((id) => [id, element(id).value]));
    try {
      window.history.replaceState(null, "", `${location.pathname}${location.search}${kept.size ? `#${kept}` : ""}`);
    } catch {
      // some browsers limit how often this is allowed: the page still works
    }
  };

  const from_address = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const host = wanted.get("host") ?? ""; // a host that no longer exists: then no card is shown, rather than all cards
    if (![...element("host").options].some((it) => it.value === host)) element("host").add(new Option(host, host));
    for (const id of fields) element(id).value = wanted.get(id) ?? "";
    for (const id of fields.slice(1)) if (element(id).selectedIndex < 0) element(id).selectedIndex = 0;
    apply();
  };

  const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  element("csv").addEventListener("click", (event) => {
    const text = [data.header, ...data.rows].map((cells) => `${cells.map(quoted).join(",")}\r\n`).join("");
    event.currentTarget.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  });
  element("csv").hidden = false;
  element("filter").hidden = false;
  element("filter").addEventListener("submit", (event) => event.preventDefault());
  element("filter").addEventListener("input", apply);
  element("more").addEventListener("click", () => {
    all = true;
    apply();
  });
  window.addEventListener("hashchange", from_address);
  from_address();
  body.dataset.ready = "";
})();
