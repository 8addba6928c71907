"use strict";
// One attack's queries at a time; a picture exists only once it is shown.
{
  const { entries, pictures } = pageData("gallery");
  const place = document.getElementById("pictures");

  function picture(number, words, mark = "") {
    const image = element("img", { src: pictures[number], alt: words, loading: "lazy", decoding: "async" });
    return element("span", { class: `picture ${mark}` }, image);
  }

  function retrieved(row, label) {
    return row.retrieved.map(([number, isRelevant], rank) => {
      const word = isRelevant ? "relevant" : "not relevant";
      return picture(number, `retrieved #${rank + 1} for ${label}, ${row.word}: ${word}`, isRelevant ? "hit" : "miss");
    });
  }

  function row(data, label) {
    const shown = [picture(data.image, `${label}, ${data.word}`)];
    if ("difference" in data) shown.push(picture(data.difference, `difference times ${data.factor}, ${data.word}`));
    const found = retrieved(data, label);
    if (found.length) shown.push(element("span", { class: "arrow", "aria-hidden": "true" }, "→"), ...found);
    if ("predicted" in data) {
      const mark = data.right ? "right" : "wrong";
      shown.push(element("span", { class: `predicted ${mark}` }, `taken for ${data.predicted} (${mark})`));
    }
    return element("div", { class: "line" }, element("span", { class: "word" }, data.word), ...shown);
  }

  function query({ label, rows }) {
    const lines = rows.map((one) => row(one, label));
    return element("article", { class: "query" }, element("h3", {}, label || "query"), ...lines);
  }

  function show(name) {
    const entry = entries.find((one) => one.name === name);
    const said = element("p", { class: "said" }, entry.said);
    place.querySelector(".queries").replaceChildren(said, ...entry.queries.map(query));
  }

  if (place) {
    const names = entries.map((entry) => entry.name);
    const choose = selectOf("Attack", names, names[0], show);
    place.querySelector(".controls").append(choose);
    // Nothing is decoded before the reader comes near.
    const near = new IntersectionObserver(
      ([seen]) => {
        if (!seen.isIntersecting) return;
        near.disconnect();
        show(choose.querySelector("select").value);
      },
      { rootMargin: "600px" },
    );
    near.observe(place);
  }
}
