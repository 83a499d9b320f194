/** Recipes: values for a purpose and a number of images. Loaded once the page stands. Markup: <select name="recipe">. */

import { get } from "./api.js";
import { complain } from "./dialogs.js";
import { el, find, say } from "./dom.js";
import { count } from "./format.js";
import { project } from "./project.js";
import { apply, values } from "./settings.js";

const select = find("#recipe");
const why = find("[data-recipe-why]");
let recipes = [];

const imagesNow = () => project.data?.images.length ?? 0;
const chosen = () => recipes.find((recipe) => recipe.id === select.value);

/** Whether the form holds just what the recipe says. */
function holds(recipe) {
  const now = values();
  return Object.entries(recipe.settings).every(([name, value]) => same(now[name], value));
}

const same = (typed, value) =>
  typeof value === "number" ? Number(typed) === value : String(typed) === String(value);

async function load() {
  const found = await get(`/api/recipes?images=${imagesNow()}`);
  recipes = found.recipes;
  const was = select.value;
  const options = recipes.map((recipe) => new Option(recipe.label, recipe.id));
  select.replaceChildren(select.options[0], ...options);
  select.value = recipes.some((recipe) => recipe.id === was) ? was : "";
  if (found.problems.length) why.title = found.problems.map((problem) => problem.error).join(" ");
}

/** Another number of images: a recipe that still stands as it was is made anew for it. */
async function follow() {
  const before = chosen();
  const kept = before && holds(before);
  await load();
  const now = chosen();
  if (kept && now && !holds(now)) apply(now.settings);
  draw();
}

function choose() {
  const recipe = chosen();
  if (recipe) apply({ ...recipe.settings, recipe: recipe.id });
  draw();
}

/** A field of the recipe was changed: the settings are one's own now. */
function leave(event) {
  const recipe = chosen();
  if (!recipe || event.target === select || !(event.target.name in recipe.settings) || holds(recipe)) return;
  select.value = "";
  draw();
}

function draw() {
  const recipe = chosen();
  if (!recipe) {
    say(why, "");
    return;
  }
  const images = imagesNow();
  const made = `${count(recipe.steps, "step")}, each image looked at ${count(recipe.looks, "time")}`;
  const basis = images ? `For your ${count(images, "image")}` : "For 10 images";
  why.replaceChildren(`${recipe.why} `, el("span", { className: "numbers", textContent: `${basis}: ${made}.` }));
}

let images = -1;

function look() {
  if (imagesNow() === images) return;
  images = imagesNow();
  follow().catch(complain);
}

/** Offer the recipes, and keep them in step with the images. */
export async function startRecipes() {
  images = imagesNow();
  await load();
  const recipe = chosen();
  if (recipe && !holds(recipe)) select.value = "";
  draw();
  select.addEventListener("change", choose);
  document.addEventListener("input", leave);
  for (const type of ["project:opened", "project:read", "images:changed"]) document.addEventListener(type, look);
  document.addEventListener("settings:changed", draw);
}
