/**
 * The browser's Back closes a dialog instead of leaving the page. While dialogs stand open, each has an entry of its
 * own in the history; closed otherwise, it takes its entry back. Addresses, and what others keep in `history.state`,
 * stay as they are.
 */

const MARK = "dialogs"; // in `history.state`: at how many open dialogs the entry was made

const depthOf = (state) => state?.[MARK] ?? 0;

let open = []; // the topmost last
let depth = depthOf(history.state); // not 0 after a reload: the entries are still there, and are used again
let leaving = null; // while we go back ourselves: {address} to put there, "" for the one that stands there

/** Let Back close `dialog`. To be called each time it has just been opened. */
export function closeOnBack(dialog) {
  if (open.includes(dialog) && dialog.open) return;
  open = [...open.filter((one) => one !== dialog), dialog];
  // Others that hear of the closing may set the address right, and perhaps open the next dialog.
  dialog.addEventListener("close", () => setTimeout(settle), { once: true });
  settle();
}

/** As many entries as open dialogs. `carry`: the address goes along with us, if we have to go back. */
function settle({ carry = true } = {}) {
  if (leaving) return; // until we have arrived
  open = open.filter((dialog) => dialog.open && dialog.isConnected);
  while (depth < open.length) enter();
  if (depth > open.length) {
    leaving = { address: carry ? location.href : "" };
    history.go(open.length - depth);
  }
}

function enter() {
  depth += 1;
  history.scrollRestoration = "manual"; // of the entry we leave: coming back to it must not move the page
  const { state } = history;
  history.pushState({ ...(typeof state === "object" ? state : null), [MARK]: depth }, "");
  history.scrollRestoration = "auto";
}

function arrived({ state }) {
  const own = leaving;
  leaving = null;
  depth = depthOf(state);
  history.scrollRestoration = "auto";
  if (own?.address && own.address !== location.href) history.replaceState(history.state, "", own.address);
  if (!own) open.splice(depth).reverse().forEach((dialog) => dialog.close());
  settle({ carry: false }); // on an entry whose dialog is closed nobody stays
}

window.addEventListener("popstate", arrived);
