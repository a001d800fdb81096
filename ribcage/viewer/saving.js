/** What a person takes along: the answers as JSON, and what is seen as a PNG with its caption. */

import { FONT, draw, shownBoxes } from "./drawing.js";
import { percent, plain, ruled } from "./words.js";

/** Everything that was said, as it was said. */
export function answers(studies, models, use) {
  const said = (study) => Object.fromEntries(study.answers);
  const windowed = ({ width, level, invert }) => ({ width, level, invert });
  const one = (study) => ({ file: study.name, bytes: study.file.size, error: study.error || null, window: windowed(study.view), answers: said(study) });
  return { program: "Ribcage", use, made: new Date().toISOString(), models, studies: studies.map(one) };
}

/** The panes beside each other, each with its caption below, and at the foot what this is for. */
export async function image(panes, look, use) {
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
  const foot = `${use}  ·  Ribcage  ·  ${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC`;
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

/** As much of a text as fits. */
function shortened(context, text, most) {
  if (context.measureText(text).width <= most) return text;
  let kept = text;
  while (kept && context.measureText(`${kept} …`).width > most) kept = kept.slice(0, -1);
  return `${kept} …`;
}

/** What has to be known about an image that leaves the page. */
function caption(study, look) {
  const { width, level, invert } = study.view;
  const window = `window ${width.toFixed(2)}, level ${level.toFixed(2)}${invert ? ", inverted" : ""}`;
  const said = study.answers.get(look.model);
  const remarks = [...(said?.remarks ?? []), ...(said?.warning ? [said.warning] : [])];
  const boxes = look.boxes ? shownBoxes(study, look).filter((box) => !box.around) : [];
  return [
    study.name,
    `Model ${look.model}  ·  ${window}`,
    look.finding ? about(study, look) : null,
    boxes.length ? boxes.map((box, at) => `${at + 1} ${plain(box.finding)} ${percent(box.score)}`).join("   ") : null,
    ...remarks.map((remark) => `! ${remark}`),
  ].filter(Boolean);
}

function about(study, look) {
  const said = study.said(look.model, look.finding);
  const heat = study.heat(look.model, look.finding)?.canvas && look.opacity > 0;
  const colours = heat ? `  ·  colours: what speaks for it (heat-map at ${Math.round(100 * look.opacity)} %)` : "";
  const crossed = said?.crossed?.[look.rule] ? `, above its threshold (${ruled(look.rule)})` : "";
  return `${plain(look.finding)}${said ? ` ${percent(said.probability)}${crossed}` : ""}${colours}`;
}
