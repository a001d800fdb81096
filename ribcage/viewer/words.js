/** How numbers are said. */

/** A share of 1 as "62 %", with more digits where it is small. */
export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

/** An interval of shares: "10–20 %". */
export const between = (low, high) => `${percent(low).replace(" %", "")}–${percent(high)}`;

/** "1 study", "2 studies". */
export const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

/** A finding's name as it is read: "Pleural Thickening". */
export const plain = (name) => name.replaceAll("_", " ");

/** What two studies side by side are called. */
export const LETTERS = ["A", "B"];

const RULES = { youden: "Youden", f1: "best F1", midpoint: "midpoint" };

/** How a threshold was chosen: "best F1", "sensitivity 95 %". */
export const ruled = (rule) => RULES[rule] ?? plain(rule).replace(/ (\d+)$/, " $1 %");

/** Validation images of similar probability, and how many have the finding; null when that is unknown. */
export function reliability(found) {
  if (!found) return null;
  const { images, positives, share, low, high } = found;
  return `Of ${images} validation images answered like this, ${positives} had it: ${percent(share)} (95 % interval ${between(low, high)}).`;
}

/** How well a finding is told apart, with its interval. */
export function auroc(found) {
  if (!found) return "AUROC not known.";
  const number = (value) => value.toFixed(2);
  const known = Number.isFinite(found.low) && Number.isFinite(found.high);
  const interval = known ? ` (95 % interval ${number(found.low)}–${number(found.high)})` : "";
  const of = Number.isFinite(found.n) ? `, on ${found.n} images, ${found.positives} with it` : "";
  return `AUROC ${number(found.value)}${interval}${of}.`;
}

/** What a study's tags say, without anything about who it is. */
export function tags(found = {}) {
  const age = found.age && /^\d+(\.\d+)?$/.test(String(found.age)) ? `${found.age} years` : found.age;
  return [found.view, found.sex, age, found.manufacturer].filter(Boolean).join(" · ");
}
