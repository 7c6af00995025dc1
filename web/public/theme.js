// Before the first paint: the reader's choice of light or dark, so that the page does not flash.
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // a private window: the system decides
}
