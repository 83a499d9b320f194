/** Buttons whose work takes a while. */

import { complain } from "./dialogs.js";

/**
 * A press does its work once, however often it is pressed meanwhile, and nothing while aria-disabled. A disabled
 * button would lose the focus. `failed` is told what went wrong.
 */
export function onPress(button, action, failed = complain) {
  button.addEventListener("click", async (event) => {
    if (button.ariaBusy === "true" || button.ariaDisabled === "true") return;
    button.ariaBusy = "true";
    try {
      await action(event);
    } catch (error) {
      failed(error);
    } finally {
      button.ariaBusy = null;
    }
  });
}
