/** Recipes: values for a purpose and a number of images. Loaded once the page stands. Markup: <select name="recipe">. */

import { get } from "./api.js";
import { complain } from "./dialogs.js";
import { el, find, say } from "./dom.js";
import { count } from "./format.js";
import { project } from "./project.js";
import { apply, claimedRecipe, showRecipe, values } from "./settings.js";

const select = find("#recipe");
const flags = find("#advanced_flags");
const why = find("[data-recipe-why]");
let recipes = [];
let images = -1; // the number of images `recipes` are made for
let asked = -1; // the number last asked for

const imagesNow = () => project.data?.images.length ?? 0;
const byId = (id) => recipes.find((recipe) => recipe.id === id);
const shown = () => byId(select.value);

/** Whether the form holds just what the recipe says. */
function holds(recipe) {
  const now = { ...values(), advanced_flags: squeezed(flags.value) };
  return Object.entries(recipe.settings).every(([name, value]) => same(now[name], value));
}

const squeezed = (text) => text.split(/\s+/).filter(Boolean).join(" ");

const same = (typed, value) =>
  typeof value === "number" ? typed.trim() !== "" && Number(typed) === value : squeezed(`${typed}`) === squeezed(`${value}`);

/** Get the recipes for `wanted` images; false when other ones were asked for meanwhile. */
async function load(wanted) {
  asked = wanted;
  let found;
  try {
    found = await get(`/api/recipes?images=${wanted}`);
  } catch (error) {
    if (asked === wanted) asked = -1; // so that the next look asks again
    throw error;
  }
  if (asked !== wanted) return false;
  [recipes, images] = [found.recipes, wanted];
  const was = select.value;
  select.replaceChildren(select.options[0], ...recipes.map(({ label, id }) => new Option(label, id)));
  select.value = byId(was) ? was : "";
  if (was && !select.value) showRecipe("");
  why.title = found.problems.map((problem) => problem.error).join(" ");
  return true;
}

/** Another number of images: a recipe that still stands as it was is made anew for it. */
async function follow() {
  if (imagesNow() === asked) return;
  try {
    if (!(await load(imagesNow()))) return;
  } catch (error) {
    complain(error);
    return;
  }
  const recipe = shown(); // it is none any more if a field was changed while the answer was on its way
  if (recipe && !holds(recipe)) apply(recipe.settings, { followed: true });
  else judge();
}

/** Show a recipe while the form holds it: the one that is shown, or one that a draft or a file names. */
function judge() {
  if (select.value && !holds(shown())) showRecipe("");
  const claimed = claimedRecipe();
  if (claimed && images === imagesNow()) {
    const recipe = byId(claimed);
    showRecipe(recipe && holds(recipe) ? claimed : "");
  }
  draw();
}

function choose() {
  showRecipe(select.value);
  const recipe = shown();
  if (recipe) apply(recipe.settings);
}

function draw() {
  const recipe = shown();
  if (!recipe) {
    say(why, "");
    return;
  }
  const made = `${count(recipe.steps, "step")}, each image looked at ${count(recipe.looks, "time")}`;
  const basis = images ? `For your ${count(images, "image")}` : "For 10 images";
  why.replaceChildren(`${recipe.why} `, el("span", { className: "numbers", textContent: `${basis}: ${made}.` }));
}

/** Offer the recipes, and keep them in step with the images. */
export async function startRecipes() {
  select.addEventListener("input", choose); // before the form hears of it, which would find other values
  for (const type of ["project:opened", "project:read", "images:changed"]) document.addEventListener(type, follow);
  document.addEventListener("settings:changed", judge);
  await follow();
}
