/** Memory as bars. Markup: <section data-resources> with a [data-gauge] for RAM and one for VRAM. */

import { el, find, findAll, say } from "./dom.js";
import { bytes, gigabytes } from "./format.js";

const WARN_PERCENT = 75;
const DANGER_PERCENT = 90;
const MOST_HOLDERS = 3; // named one by one

const section = find("[data-resources]");

const level = (percent) => (percent >= DANGER_PERCENT ? "danger" : percent >= WARN_PERCENT ? "warn" : "good");

function fill(gauge, name, { used, total, percent }, more) {
  const exact = percent ?? (100 * used) / total;
  const text = `${gigabytes(used)} / ${gigabytes(total)} GB · ${Math.round(exact)} %`;
  draw(gauge, name, text, more);
  const meter = find(".meter", gauge);
  meter.dataset.level = level(exact);
  meter.setAttribute("aria-valuenow", String(Math.round(exact)));
  meter.style.setProperty("--value", String(Math.min(1, exact / 100)));
}

function unknown(gauge, reason) {
  draw(gauge, "VRAM", "unknown", reason ?? "");
  find(".meter", gauge).style.setProperty("--value", "0");
}

function draw(gauge, name, text, more) {
  const meter = find(".meter", gauge);
  const line = find("[data-gauge-more]", gauge);
  say(find(".gauge-name", gauge), name);
  say(find("[data-gauge-text]", gauge), text);
  say(line, more || "\u00a0");
  line.title = more;
  meter.setAttribute("aria-label", name);
  meter.setAttribute("aria-valuetext", text);
}

const heat = ({ temperature, power }) =>
  [temperature ? `${Math.round(temperature)} °C` : null, power ? `${Math.round(power)} W` : null]
    .filter(Boolean)
    .join(" · ");

/** Show the figures of an event `resources`. */
export function drawResources({ ram, gpus, gpu_reason, disk }) {
  const free = disk ? `Disk: ${bytes(disk.free)} free` : "";
  const limit = ram?.limit === "container" ? "limit of this container · " : "";
  if (ram) fill(find('[data-gauge="ram"]', section), "RAM", ram, limit + free);
  drawGpus(gpus ?? [], gpu_reason);
}

function drawGpus(gpus, reason) {
  const gauges = findAll('[data-gauge="vram"]', section);
  gauges.slice(Math.max(1, gpus.length)).forEach((extra) => extra.remove());
  if (!gpus.length) unknown(gauges[0], reason);
  for (const [i, gpu] of gpus.entries()) {
    const gauge = gauges[i] ?? section.appendChild(gauges[0].cloneNode(true));
    const more = [gpu.name, heat(gpu)].filter(Boolean).join(" · ");
    fill(gauge, gpus.length > 1 ? `VRAM ${gpu.index}` : "VRAM", gpu, more);
    drawHolders(gauge, gpu.processes ?? []);
  }
}

/** Who holds the memory of a card; nothing where the driver does not tell. */
function drawHolders(gauge, processes) {
  const named = processes.map(({ name, pid, used, job }) => {
    const who = job ? "the run" : `${name} (process ${pid})`;
    return used ? `${who} ${gigabytes(used)} GB` : who;
  });
  const more = named.length > MOST_HOLDERS ? ` and ${named.length - MOST_HOLDERS} more` : "";
  const text = named.length ? `Held by ${named.slice(0, MOST_HOLDERS).join(", ")}${more}` : "";
  let line = find("[data-holders]", gauge);
  if (!line && text) gauge.append((line = el("p", { className: "gauge-more quiet numbers", data: { holders: "" } })));
  if (line) {
    say(line, text);
    line.hidden = !text;
  }
}
