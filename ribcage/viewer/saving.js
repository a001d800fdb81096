/** Files to save: the predictions as JSON, and the displayed image as a PNG with its caption. */

import { FONT, draw, shownBoxes } from "./drawing.js";
import { percent, plain, ruled } from "./words.js";

/** All predictions as the server returned them. */
export function predictions(studies, models, intendedUse) {
  const found = (study) => Object.fromEntries(study.predictions);
  const windowed = ({ width, level, invert }) => ({ width, level, invert });
  const one = (study) => ({ file: study.name, bytes: study.file.size, error: study.error || null, window: windowed(study.view), predictions: found(study) });
  return { program: "Ribcage", intended_use: intendedUse, created: new Date().toISOString(), models, studies: studies.map(one) };
}

/** The displayed images side by side, each with a caption, and the intended use below. */
export async function image(panes, look, intendedUse) {
  const ratio = panes[0].ratio;
  const line = 18 * ratio;
  const captions = panes.map((pane) => caption(pane.study, look));
  const below = Math.max(...captions.map((lines) => lines.length)) * line + line;
  const high = Math.max(...panes.map((pane) => pane.pixels[1]));
  const wide = panes.reduce((sum, pane) => sum + pane.pixels[0], 0);
  const canvas = new OffscreenCanvas(wide, high + below + 2 * line);
  const context = canvas.getContext("2d");
  context.fillStyle = "#101214";
  context.fillRect(0, 0, canvas.width, canvas.height);
  let left = 0;
  panes.forEach((pane, number) => {
    context.save();
    context.translate(left, 0);
    draw(context, pane.study, look, pane.pixels, ratio);
    captions[number].forEach((text, at) => write(context, text, 10 * ratio, high + (at + 1) * line, pane.pixels[0] - 20 * ratio, at === 0));
    context.restore();
    left += pane.pixels[0];
  });
  const foot = `${intendedUse}  ·  Ribcage  ·  ${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC`;
  write(context, foot, 10 * ratio, canvas.height - line, wide - 20 * ratio, true);
  return canvas.convertToBlob({ type: "image/png" });

  function write(on, text, x, y, most, strong) {
    on.font = `${strong ? 600 : 400} ${12.5 * ratio}px ${FONT}`;
    on.fillStyle = strong ? "#f2f4f5" : "#b9c0c6";
    on.textBaseline = "middle";
    on.textAlign = "left";
    on.fillText(shortened(on, text, most), x, y);
  }
}

/** A text, shortened to fit. */
function shortened(context, text, most) {
  if (context.measureText(text).width <= most) return text;
  let kept = text;
  while (kept && context.measureText(`${kept} …`).width > most) kept = kept.slice(0, -1);
  return `${kept} …`;
}

/** The caption of a saved image. */
function caption(study, look) {
  const { width, level, invert } = study.view;
  const window = `window ${width.toFixed(2)}, level ${level.toFixed(2)}${invert ? ", inverted" : ""}`;
  const found = study.predictions.get(look.model);
  const warnings = [...(found?.image_warnings ?? []), ...(found?.model_warning ? [found.model_warning] : [])];
  const boxes = look.boxes ? shownBoxes(study, look).filter((box) => !box.around) : [];
  return [
    study.name,
    `Model ${look.model}  ·  ${window}`,
    look.finding ? about(study, look) : null,
    boxes.length ? boxes.map((box, at) => `${at + 1} ${plain(box.finding)} ${percent(box.score)}`).join("   ") : null,
    ...warnings.map((warning) => `! ${warning}`),
  ].filter(Boolean);
}

function about(study, look) {
  const found = study.prediction(look.model, look.finding);
  const map = study.map(look.model, look.finding)?.canvas && look.opacity > 0;
  const colours = map ? `  ·  colours: saliency map at ${Math.round(100 * look.opacity)} % opacity` : "";
  const above = found?.above_threshold?.[look.rule] ? `, above threshold (${ruled(look.rule)})` : "";
  return `${plain(look.finding)}${found ? ` ${percent(found.probability)}${above}` : ""}${colours}`;
}
