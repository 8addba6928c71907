"use strict";
// Figures by plotly.js, each with selects for what it shows and check boxes for its lines.
{
  const HIDDEN_WITH_RULE = ["rule", "control"];
  const DASHES = { exact: "solid", rule: "dash", control: "dot", other: "solid", clean: "dot", gap: "solid" };
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star", "hexagon", "triangle-down"];
  const INK = "#000000";

  // plotly.js renders some markup in texts: what a file says must stay text.
  function plain(text) {
    return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\n", "<br>");
  }

  function inked(colour) {
    return colour === INK ? style("--ink") : colour;
  }

  function swatch(colour) {
    const made = element("span", { class: "swatch", "aria-hidden": "true" });
    made.style.background = colour === INK ? "var(--ink)" : colour;
    return made;
  }

  function sample(kind) {
    return element("span", { class: `sample ${kind}`, "aria-hidden": "true" });
  }

  class PageFigure {
    constructor(figure) {
      this.figure = figure;
      this.place = document.getElementById(`figure-${figure.identifier}`);
      this.plot = this.place.querySelector(".plot");
      this.controls = this.place.querySelector(".controls");
      this.models = [...new Set(figure.series.map((series) => series.model))];
      this.state = { chosen: {}, hidden: new Set(), byRule: true, bands: true };
      this.build();
      document.addEventListener("themechange", () => this.draw());
    }

    // The options of each choice depend on the ones before it.
    options(index) {
      const before = this.figure.choices.slice(0, index);
      const fitting = this.figure.series.filter((series) =>
        before.every(({ key }) => series.choices[key] === this.state.chosen[key]),
      );
      const present = new Set(fitting.map((series) => series.choices[this.figure.choices[index].key]));
      return this.figure.choices[index].options.filter((option) => present.has(option));
    }

    build() {
      const { chosen } = this.state;
      const selects = this.figure.choices.map(({ key, label }, index) => {
        const options = this.options(index);
        if (!options.includes(chosen[key])) chosen[key] = options[0];
        const changed = (value) => {
          chosen[key] = value;
          this.build();
          this.controls.querySelector(`[data-choice="${key}"] select`)?.focus();
        };
        const made = selectOf(label, options, chosen[key], changed);
        made.dataset.choice = key;
        made.hidden = options.length < 2;
        return made;
      });
      this.controls.replaceChildren(...[...selects, this.modelBoxes(), this.gradientBoxes()].filter(Boolean));
      this.draw();
    }

    fitting() {
      const { chosen } = this.state;
      return this.figure.series.filter((series) =>
        Object.entries(series.choices).every(([key, value]) => chosen[key] === value),
      );
    }

    modelBoxes() {
      const { hidden } = this.state;
      const present = this.models.filter((model) => this.fitting().some((series) => series.model === model));
      const boxes = present.map((model) => {
        const changed = (checked) => {
          if (checked) hidden.delete(model);
          else hidden.add(model);
          this.draw();
        };
        const plainest = this.fitting().find((series) => series.model === model);
        return checkbox(model, !hidden.has(model), changed, swatch(plainest.colour));
      });
      return element("fieldset", { class: "models" }, element("legend", {}, "Rules"), ...boxes, this.bandBox());
    }

    bandBox() {
      if (this.figure.bars || !this.fitting().some((series) => series.note)) return null;
      const changed = (checked) => {
        this.state.bands = checked;
        this.draw();
      };
      return checkbox("bands", this.state.bands, changed);
    }

    // The exact gradient cannot be switched off: no number by a rule's gradient stands alone.
    gradientBoxes() {
      const kinds = new Set(this.fitting().map((series) => series.kind));
      if (this.figure.bars || !HIDDEN_WITH_RULE.some((kind) => kinds.has(kind))) return null;
      const changed = (checked) => {
        this.state.byRule = checked;
        this.draw();
      };
      const said = [
        element("span", { class: "check fixed" }, sample("exact"), "exact gradient"),
        checkbox("rule gradient", this.state.byRule, changed, sample("rule")),
      ];
      if (kinds.has("control")) {
        said.push(element("span", { class: "check fixed" }, sample("control"), "rule gradient of another rule (control)"));
      }
      return element("fieldset", { class: "gradients" }, element("legend", {}, "Attacker's gradient"), ...said);
    }

    shown() {
      const { hidden, byRule } = this.state;
      const isOff = (series) => hidden.has(series.model) || (!byRule && HIDDEN_WITH_RULE.includes(series.kind));
      return this.fitting().filter((series) => this.figure.bars ? !hidden.has(series.model) : !isOff(series));
    }

    draw() {
      const shown = this.shown();
      const traces = this.figure.bars
        ? shown.map((series) => this.bars(series))
        : [...this.references(), ...shown.flatMap((series) => [this.band(series), this.line(series)]).filter(Boolean)];
      const isTouch = matchMedia("(pointer: coarse)").matches;
      // Named one by one, since others would send the figure to a server.
      const buttons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
      const config = { responsive: true, displaylogo: false, ...(isTouch ? { displayModeBar: false } : {}) };
      const layout = { ...this.layout(shown), dragmode: isTouch ? false : "zoom" };
      Plotly.react(this.plot, traces, layout, { ...config, modeBarButtons: buttons });
      const notes = [...new Set(shown.map((series) => series.note).filter(Boolean))];
      const what = this.figure.bars ? "Whiskers" : "Bands";
      this.place.querySelector(".band").textContent =
        notes.length && this.state.bands ? `${what}: ${notes.join("; ")}.` : "";
    }

    line(series) {
      const isThin = series.kind === "clean";
      const isMany = series.x.length > 25;
      const isOpen = HIDDEN_WITH_RULE.includes(series.kind);
      const colour = inked(series.colour);
      const symbol = SYMBOLS[this.models.indexOf(series.model) % SYMBOLS.length] + (isOpen ? "-open" : "");
      return {
        type: "scatter",
        mode: isMany ? "lines" : "lines+markers",
        name: plain(`${series.model}, ${series.kind}`),
        x: series.x,
        y: series.y,
        line: { color: colour, width: isThin ? 1.3 : 2.2, dash: DASHES[series.kind] },
        marker: { color: colour, size: 7, symbol },
        text: series.text.map(plain),
        hovertemplate: "%{text}<extra></extra>",
      };
    }

    band(series) {
      if (!this.state.bands) return null;
      const known = series.x.map((_, place) => place).filter((place) => (series.low[place] ?? null) !== null);
      if (known.length < 2) return this.whiskers(series, known);
      const backward = [...known].reverse();
      return {
        type: "scatter",
        mode: "lines",
        x: [...known.map((place) => series.x[place]), ...backward.map((place) => series.x[place])],
        y: [...known.map((place) => series.high[place]), ...backward.map((place) => series.low[place])],
        fill: "toself",
        fillcolor: inked(series.colour),
        opacity: 0.13,
        line: { width: 0 },
        hoverinfo: "skip",
      };
    }

    // A band needs two points; a single one gets whiskers.
    whiskers(series, known) {
      if (!known.length) return null;
      const [place] = known;
      const colour = inked(series.colour);
      return {
        type: "scatter",
        mode: "lines",
        x: [series.x[place], series.x[place]],
        y: [series.low[place], series.high[place]],
        line: { width: 6, color: colour },
        opacity: 0.2,
        hoverinfo: "skip",
      };
    }

    bars(series) {
      const above = series.y.map((value, place) => Math.max(0, (series.high[place] ?? value) - value));
      const below = series.y.map((value, place) => Math.max(0, value - (series.low[place] ?? value)));
      const colour = inked(series.colour);
      const isControl = series.kind === "control";
      return {
        type: "bar",
        name: plain(series.model),
        x: series.x.map(plain),
        y: series.y,
        marker: { color: colour, line: { color: colour, width: 1 }, pattern: { shape: isControl ? "/" : "", solidity: 0.35 } },
        error_y: { type: "data", symmetric: false, array: above, arrayminus: below, color: style("--muted"), thickness: 1.2 },
        text: series.text.map(plain),
        textposition: "none",
        hovertemplate: "%{text}<extra></extra>",
      };
    }

    references() {
      const { chosen } = this.state;
      const fits = ({ choices }) => Object.entries(choices).every(([key, value]) => chosen[key] === value);
      return this.figure.references.filter(fits).map((reference) => ({
        type: "scatter",
        mode: "lines",
        name: plain(reference.name),
        x: reference.x,
        y: reference.y,
        line: { color: style("--muted"), width: 1.3, dash: reference.name === "chance" ? "dot" : "dashdot" },
        hoverinfo: "skip",
      }));
    }

    layout(shown) {
      const { figure } = this;
      const axis = { gridcolor: style("--line"), zerolinecolor: style("--line"), linecolor: style("--line") };
      const ticks = figure.x_ticks.length
        ? { tickvals: figure.x_ticks.map(([value]) => value), ticktext: figure.x_ticks.map(([, name]) => plain(name)) }
        : {};
      const annotations = this.references().map(({ name, y }) => ({
        text: `${name} ${y[0].toFixed(1)}`,
        xref: "paper",
        x: 1,
        xanchor: "right",
        y: y[0],
        yanchor: "bottom",
        showarrow: false,
        font: { size: 11, color: style("--muted") },
      }));
      return {
        autosize: true,
        margin: { l: 58, r: 12, t: 12, b: 48 },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: style("--font"), size: 13, color: style("--ink") },
        showlegend: false,
        hovermode: "closest",
        hoverlabel: { bgcolor: style("--card"), bordercolor: style("--line"), font: { color: style("--ink") }, align: "left" },
        barmode: "group",
        xaxis: { ...axis, ...ticks, title: { text: plain(figure.x_title) }, ...(figure.x_range ? { range: figure.x_range } : {}) },
        yaxis: { ...axis, title: { text: plain(this.yTitle(shown)) }, ...(figure.from_zero ? { rangemode: "tozero" } : {}) },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: style("--muted"), activecolor: style("--accent") },
        annotations: shown.length ? annotations : [],
        uirevision: JSON.stringify(this.state.chosen),
      };
    }

    yTitle(shown) {
      const scores = [...new Set(shown.map((series) => series.score).filter(Boolean))];
      if (scores.length) return scores.join(" or ");
      return this.figure.y_titles[this.state.chosen.measure ?? ""] ?? "";
    }
  }

  for (const figure of pageData("figures")) new PageFigure(figure);
}
