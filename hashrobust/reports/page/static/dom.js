"use strict";
// Elements are made here alone. Texts become text nodes, so that nothing from the data can become markup.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function pageData(name) {
  return JSON.parse(document.getElementById(`data-${name}`).textContent);
}

// A labelled select; `chosen` is kept if it is among the options.
function selectOf(label, options, chosen, changed) {
  const select = element("select", { onchange: () => changed(select.value) });
  for (const option of options) select.append(element("option", { value: option }, option));
  if (options.includes(chosen)) select.value = chosen;
  return element("label", { class: "choice" }, element("span", {}, label), select);
}

function checkbox(label, checked, changed, swatch = null) {
  const box = element("input", { type: "checkbox", onchange: () => changed(box.checked) });
  box.checked = checked;
  return element("label", { class: "check" }, box, swatch, label);
}

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
