"use strict";
// The dialog that shows where the numbers of a row come from.
const showSources = (() => {
  const { entries, texts } = pageData("sources");
  const dialog = document.getElementById("sources");
  const content = dialog.querySelector(".content");
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  function copyButton(text) {
    const button = element("button", { type: "button", class: "copy" }, "Copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Not allowed here";
      }
    });
    return button;
  }

  function block(title, text, copied = false) {
    const head = element("div", { class: "block-head" }, element("h3", {}, title), copied ? copyButton(text) : null);
    return element("div", {}, head, element("pre", { tabindex: "0" }, text));
  }

  function folder(place, open) {
    const entry = entries[place];
    const parts = entry.parts.map(([title, text]) => block(title, texts[text]));
    const seed = entry.seed === null ? "" : ` (seed ${entry.seed})`;
    return element(
      "details",
      { open },
      element("summary", {}, entry.name + seed),
      block("Commands that make it", entry.commands, true),
      ...parts,
    );
  }

  return (places) => {
    content.replaceChildren(...places.map((place, index) => folder(place, index === 0)));
    dialog.showModal();
    dialog.scrollTop = 0;
  };
})();
