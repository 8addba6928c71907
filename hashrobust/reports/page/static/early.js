"use strict";
// Before anything is painted, so that a page in the dark does not flash.
try {
  const chosen = localStorage.getItem("hashrobust-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // A browser without storage follows the system.
}
