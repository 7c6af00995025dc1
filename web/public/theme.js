// Before the first paint: scripts run here, and the reader's choice of light or dark, so that nothing flashes.
document.documentElement.classList.add("scripted");
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // a private window: the system decides
}
