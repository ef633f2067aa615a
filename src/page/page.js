"use strict";
const two = new Intl.NumberFormat(
  "en", { minimumFractionDigits: 2, maximumFractionDigits: 2, useGrouping: false, roundingMode: "halfEven" });
const page = {
  // What the page carries in a script of type application/json with that id.
  data: id => JSON.parse(document.getElementById(id).textContent),
  // As the program writes them: 50,000 and 78.40 %.
  thousands: number => String(number).replace(/\B(?=(\d{3})+$)/g, ","),
  percent: share => two.format(100 * share) + " %",
  // An element with these properties (or attributes, where a name has a dash), and what is in it: texts stay texts.
  element: (name, properties = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key.includes("-")) element.setAttribute(key, value); else element[key] = value;
    }
    element.append(...children);
    return element;
  },
};

// A table of class "sortable" is sorted by the columns whose heading says data-sort="text" or "number", by what a
// cell shows or by its data-value. With data-sieve="classes" it is searched and filtered too, and counts its classes.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], headings = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const number = (row, column) => value(row, column) === "" ? NaN : Number(value(row, column));
  headings.forEach((heading, column) => {
    const kind = heading.dataset.sort;
    if (!kind) return;
    const button = page.element("button", { type: "button" }, ...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const now = heading.getAttribute("aria-sort");
      // Numbers begin with the largest; what has none comes last both ways.
      const first = kind === "number" ? "descending" : "ascending";
      const way = now === "ascending" ? "descending" : now === "descending" ? "ascending" : first;
      const sign = way === "ascending" ? 1 : -1;
      const compare = kind === "number"
        ? (a, b) => {
          const [x, y] = [number(a, column), number(b, column)];
          return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y);
        }
        : (a, b) => sign * value(a, column).localeCompare(value(b, column), "en", { numeric: true });
      headings.forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", way);
      body.append(...rows.sort(compare));
    });
  });
  if (!table.dataset.sieve) continue;

  const form = page.element("form", { className: "sieve" });
  const control = (name, label, properties) => {
    form.append(page.element(name, { "aria-label": label, ...properties }));
    return form.lastChild;
  };
  const search = control("input", "search", { type: "search", placeholder: "search (press /)" });
  const column = control("select", "column to filter by", {});
  headings.forEach((heading, place) => {
    if (heading.dataset.sort === "number") column.append(new Option(heading.textContent, place));
  });
  const [from, to] = ["from", "to"].map(
    label => control("input", label, { type: "number", step: "any", placeholder: label }));
  const count = control("output", "how many are shown", {});
  const texts = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));
  const sift = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(word => word);
    const [low, high] = [from, to].map(input => input.value === "" ? NaN : Number(input.value));
    let shown = 0;
    for (const row of rows) {
      const n = number(row, column.value);
      const kept = words.every(word => texts.get(row).includes(word)) && (isNaN(low) || n >= low) && (isNaN(high) || n <= high);
      row.hidden = !kept;
      shown += kept;
    }
    count.textContent = `${page.thousands(shown)} of ${page.thousands(rows.length)} ${table.dataset.sieve}`;
  };
  form.addEventListener("input", sift);
  form.addEventListener("submit", event => event.preventDefault());
  search.addEventListener("keydown", event => {
    if (event.key === "Escape") { form.reset(); sift(); }
  });
  document.addEventListener("keydown", event => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea, dialog")) return;
    event.preventDefault();
    table.closest("details")?.setAttribute("open", "");
    search.focus();
  });
  table.parentElement.before(form);
  sift();
}
