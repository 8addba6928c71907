"use strict";
// Tables that sort by a button in each head, and filter by text and by selects.
{
  const PAGE = 25;
  const TALL = 12;
  const LONG = 24;
  const RULE = "(rule gradient)";
  const EXACT = "exact gradient";
  const words = new Intl.Collator("en", { numeric: true });

  // The first number of a cell, such as 41.5 of "(rule: 41.5 ± 1.2)"; none sorts last.
  function numberOf(cell) {
    const found = cell.match(/-?\d+(\.\d+)?/);
    return found ? Number(found[0]) : NaN;
  }

  function compare(first, second, isNumber) {
    if (!isNumber) return words.compare(first, second);
    return numberOf(first) - numberOf(second);
  }

  function missing(cell, isNumber) {
    return isNumber ? Number.isNaN(numberOf(cell)) : cell === "" || cell === "—";
  }

  class PageTable {
    constructor(table) {
      this.table = table;
      this.isLong = table.columns.map((_, column) => table.rows.some((row) => row[column].length > LONG));
      this.state = { column: -1, ascending: true, text: "", chosen: {}, shown: PAGE };
      const place = document.getElementById(`table-${table.identifier}`);
      this.count = element("span", { class: "count", role: "status" });
      this.body = element("tbody");
      this.heads = table.columns.map((column, index) => this.head(column, index));
      this.more = element("button", { type: "button", class: "more", onclick: () => this.showMore() });
      if (table.filters.length) place.querySelector(".controls").append(...this.controls());
      place.querySelector(".rows").append(this.box(), this.more);
      this.draw();
    }

    box() {
      const head = element("tr", {}, ...this.heads, element("th", { scope: "col", class: "word" }, element("span", { class: "head" }, "Source")));
      const labelled = `title-${this.table.identifier}`;
      const table = element("table", { "aria-labelledby": labelled }, element("thead", {}, head), this.body);
      const isTall = this.table.rows.length > TALL;
      return element("div", { class: isTall ? "box tall" : "box", tabindex: "0", role: "region", "aria-labelledby": labelled }, table);
    }

    head([name, isNumber], index) {
      const button = element("button", { type: "button", onclick: () => this.sort(index) }, name);
      return element("th", { scope: "col", class: isNumber ? "number" : "word", "aria-sort": "none" }, button);
    }

    controls() {
      const text = element("input", { type: "search", placeholder: "any words" });
      text.addEventListener("input", () => this.filter(() => (this.state.text = text.value)));
      const all = "all";
      const selects = this.table.filters.map((column) => {
        const present = [...new Set(this.table.rows.map((row) => row[column]))].sort(words.compare);
        const changed = (value) => this.filter(() => (this.state.chosen[column] = value === all ? null : value));
        return selectOf(this.table.columns[column][0], [all, ...present], all, changed);
      });
      const search = element("label", { class: "choice" }, element("span", {}, "Filter"), text);
      return [search, ...selects, this.count];
    }

    filter(change) {
      change();
      this.state.shown = PAGE;
      this.draw();
    }

    sort(column) {
      const { state } = this;
      state.ascending = state.column === column ? !state.ascending : true;
      state.column = column;
      this.heads.forEach((head, index) => {
        const order = state.ascending ? "ascending" : "descending";
        head.setAttribute("aria-sort", index === column ? order : "none");
      });
      this.draw();
    }

    showMore() {
      const first = this.state.shown;
      this.state.shown += 4 * PAGE;
      this.draw();
      this.body.rows[first]?.querySelector("button")?.focus();
    }

    // Places of the rows that pass the filters, in order.
    places() {
      const { rows, columns } = this.table;
      const { column, ascending, text, chosen } = this.state;
      const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
      const passes = (row) =>
        wanted.every((word) => row.some((cell) => cell.toLowerCase().includes(word))) &&
        Object.entries(chosen).every(([place, value]) => value === null || row[place] === value);
      const places = rows.map((_, place) => place).filter((place) => passes(rows[place]));
      if (column < 0) return places;
      const isNumber = columns[column][1];
      const known = places.filter((place) => !missing(rows[place][column], isNumber));
      const unknown = places.filter((place) => missing(rows[place][column], isNumber));
      known.sort((a, b) => (ascending ? 1 : -1) * compare(rows[a][column], rows[b][column], isNumber));
      return [...known, ...unknown];
    }

    draw() {
      const places = this.places();
      const shown = places.slice(0, this.state.shown);
      this.body.replaceChildren(...shown.map((place) => this.row(place)));
      const left = places.length - shown.length;
      this.more.hidden = left === 0;
      this.more.textContent = `Show ${Math.min(left, 4 * PAGE)} more of ${left}`;
      this.count.textContent = `${places.length} of ${this.table.rows.length} rows`;
    }

    row(place) {
      const cells = this.table.rows[place].map((cell, column) => {
        const [name, isNumber] = this.table.columns[column];
        const kind = name === RULE ? " by-rule" : name === EXACT ? " exact" : "";
        const verdict = ["PASS", "FAIL"].includes(cell) ? ` ${cell.toLowerCase()}` : "";
        const size = !isNumber && this.isLong[column] ? " long" : "";
        return element("td", { class: (isNumber ? "number" : "word") + size + kind + verdict }, cell);
      });
      const label = `Source of ${this.table.rows[place].slice(0, 3).join(", ")}`;
      const open = () => showSources(this.table.sources[place]);
      const button = element("button", { type: "button", class: "source", "aria-label": label, onclick: open }, "Details");
      return element("tr", {}, ...cells, element("td", {}, button));
    }
  }

  for (const table of pageData("tables")) new PageTable(table);
}
