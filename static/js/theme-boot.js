// Runs before the first paint, so that the chosen theme never flashes up late.
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage can be switched off: the system's theme it is.
}
