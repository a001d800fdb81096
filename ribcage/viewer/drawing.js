/** Draw the displayed image on a canvas: windowed pixels, saliency map and numbered boxes. */

import { placed } from "./view.js";

const INK = "#ffffff";
const SHADE = "#000000";
export const FONT = '"Segoe UI", system-ui, -apple-system, "Noto Sans", "Noto Sans CJK SC", sans-serif';

/** Draw a study on (wide, high) pixels of a canvas; `ratio` is the number of canvas pixels per CSS pixel. */
export function draw(context, study, look, [wide, high], ratio = 1, quick = false) {
  context.save();
  context.beginPath();
  context.rect(0, 0, wide, high);
  context.clip();
  context.fillStyle = "#000";
  context.fillRect(0, 0, wide, high);
  if (study.film) {
    const place = placed(study.view, study.size, [wide, high]);
    over(context, (quick ? study.film : (study.sharp ?? study.film)).through(study.view), study.size, place);
    const heat = look.finding && look.opacity > 0 ? study.map(look.model, look.finding)?.canvas : null;
    if (heat) {
      context.globalAlpha = look.opacity;
      over(context, heat, study.size, place);
      context.globalAlpha = 1;
    }
    if (look.boxes) shownBoxes(study, look).forEach((box, at) => outline(context, box, at + 1, place, ratio));
  }
  context.restore();
}

/** The displayed boxes, in the order of their numbers. */
export const shownBoxes = (study, look) => study.boxes(look.model, look.finding, look.opacity > 0);

function over(context, canvas, [width, height], { scale, left, top }) {
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, left, top, width * scale, height * scale);
}

/** Draw a box (dashed around high saliency) and its number. */
function outline(context, box, number, { scale, left, top }, ratio) {
  const [x, y] = [left + box.x * scale, top + box.y * scale];
  const [wide, high] = [box.width * scale, box.height * scale];
  const size = 12 * ratio;
  context.font = `600 ${size}px ${FONT}`;
  context.textBaseline = "bottom";
  context.textAlign = "right";
  for (const [style, thick] of [[SHADE, 4], [INK, 1.5]]) {
    context.strokeStyle = style;
    context.lineWidth = thick * ratio;
    context.setLineDash(box.around ? [5 * ratio, 4 * ratio] : []);
    context.strokeRect(x, y, wide, high);
  }
  context.setLineDash([]);
  context.lineWidth = 3 * ratio;
  context.strokeStyle = SHADE;
  context.fillStyle = INK;
  const place = [Math.max(x - 4 * ratio, size), Math.max(y + size, size)];
  context.strokeText(String(number), ...place);
  context.fillText(String(number), ...place);
}
