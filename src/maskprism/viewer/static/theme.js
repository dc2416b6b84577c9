"use strict";
// The colours that were chosen before, on this page or another one of the same place, before anything is drawn.
try {
  const theme = localStorage.getItem("maskprism-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // a page that may read nothing follows the system
}
