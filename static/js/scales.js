/** Scales of a chart: where a value lies, which round values are marked, and what they are called. */

import { ticks, wholeTicks } from "./chart.js";

const FEW_DECADES = 1.2; // below so many powers of ten, a log scale is marked like a plain one

/**
 * From values between `low` and `high` to pixels between `from` and `to`. With `log`, equal factors are equally
 * far apart; values that are not above 0 lie at the edge.
 */
export function scaleOf(low, high, from, to, log = false) {
  const bend = log ? (value) => Math.log(Math.max(value, low)) : (value) => value;
  const straight = log ? Math.exp : (value) => value;
  const [first, span] = [bend(low), bend(high) - bend(low) || 1];
  return {
    low,
    high,
    log,
    at: (value) => from + ((bend(value) - first) / span) * (to - from),
    value: (pixel) => straight(first + ((pixel - from) / (to - from)) * span),
    marks: (count) => (log ? logMarks(low, high, count) : ticks(low, high, count)),
    wholeMarks: (count) => wholeTicks(low, high, count),
  };
}

function logMarks(low, high, count) {
  const decades = Math.log10(high / low);
  if (!(decades >= FEW_DECADES)) return ticks(low, high, count).filter((value) => value > 0);
  const parts = decades > count ? [1] : decades > count / 3 ? [1, 3] : [1, 2, 5];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const part of parts) {
      const value = part * 10 ** power;
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) found.push(value);
    }
  }
  return found;
}

/** Marked values as texts, with as many decimals as tell them apart. */
export function labelsOf(marks) {
  const gap = Math.min(...marks.slice(1).map((value, i) => value - marks[i]), Infinity);
  const places =
    Number.isFinite(gap) && gap > 0 ? Math.min(20, Math.max(0, -Math.floor(Math.log10(gap) + 1e-9))) : 3;
  const largest = Math.max(...marks.map(Math.abs));
  return marks.map((value) => {
    if (value === 0) return "0";
    if (largest < 0.001) return Number(value.toFixed(places)).toExponential().replace("e-", "e−");
    return Number(value.toFixed(places)).toString();
  });
}

/** The least and the greatest of values, with some room around; null when there are none. */
export function rangeOf(lists, log = false) {
  let [low, high] = [Infinity, -Infinity];
  for (const values of lists) {
    for (const value of values) {
      if (value === null || (log && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return null;
  if (log)
    return low === high ? [low / 1.5, high * 1.5] : [low / (high / low) ** 0.05, high * (high / low) ** 0.05];
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

/** How a time axis of so many seconds is told: what to divide by, and the unit. */
export function unitOf(span_s) {
  if (span_s < 240) return { size: 1, name: "s" };
  return span_s < 4 * 3600 ? { size: 60, name: "min" } : { size: 3600, name: "h" };
}
