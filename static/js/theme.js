/** The choice of theme. Markup: <select data-theme-choice> with the values "", light, dark. */

const root = document.documentElement;

function choose(theme) {
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
  try {
    if (theme) localStorage.setItem("theme", theme);
    else localStorage.removeItem("theme");
  } catch {
    // Storage switched off: the choice holds for this page.
  }
  announce();
}

function announce() {
  document.dispatchEvent(new CustomEvent("theme:changed"));
}

for (const select of document.querySelectorAll("[data-theme-choice]")) {
  select.value = root.dataset.theme ?? "";
  select.addEventListener("change", () => choose(select.value));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", announce);
window.addEventListener("storage", (event) => {
  if (event.key !== "theme") return;
  const theme = event.newValue === "light" || event.newValue === "dark" ? event.newValue : "";
  for (const select of document.querySelectorAll("[data-theme-choice]")) select.value = theme;
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
  announce();
});
