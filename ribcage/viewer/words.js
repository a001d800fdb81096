/** Formatting of numbers and names. */

/** A fraction as a percentage such as "62 %", with more digits for small values. */
export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

/** An interval of fractions as percentages: "10–20 %". */
export const between = (low, high) => `${percent(low).replace(" %", "")}–${percent(high)}`;

/** "1 study", "2 studies". */
export const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

/** The name of a finding: "Pleural Thickening". */
export const plain = (name) => name.replaceAll("_", " ");

/** Names of two studies side by side. */
export const LETTERS = ["A", "B"];

const RULES = { youden: "Youden", f1: "highest F1", midpoint: "midpoint" };

/** The name of a threshold rule: "highest F1", "sensitivity 95 %". */
export const ruled = (rule) => RULES[rule] ?? plain(rule).replace(/ (\d+)$/, " $1 %");

/** The observed frequency of positives among validation images with similar probabilities; null if unknown. */
export function reliability(found) {
  if (!found) return null;
  const { images, positives, frequency, low, high } = found;
  return `${positives} of ${images} validation images with similar probabilities were positive: ${percent(frequency)} (95 % confidence interval ${between(low, high)}).`;
}

/** AUROC for a finding, with its interval. */
export function auroc(found) {
  if (!found) return "The AUROC is unknown.";
  const number = (value) => value.toFixed(2);
  const known = Number.isFinite(found.low) && Number.isFinite(found.high);
  const interval = known ? ` (95 % confidence interval ${number(found.low)}–${number(found.high)})` : "";
  const images = Number.isFinite(found.n) ? ` on ${found.n} validation images, ${found.positives} of them positive` : "";
  return `The AUROC is ${number(found.value)}${interval}${images}.`;
}

/** DICOM tags of a study that do not identify the patient. */
export function tags(found = {}) {
  const age = found.age && /^\d+(\.\d+)?$/.test(String(found.age)) ? `${found.age} years` : found.age;
  return [found.view, found.sex, age, found.manufacturer].filter(Boolean).join(" · ");
}
