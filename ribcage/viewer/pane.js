/** A displayed image: its name, its warnings, the canvas with its gestures, and the text below. */

import { fill, make, settle } from "./dom.js";
import { draw, shownBoxes } from "./drawing.js";
import { colour } from "./film.js";
import { START, dragged, moved, placed, windowed, zoomed } from "./view.js";
import { LETTERS, percent, plain, tags } from "./words.js";

/** `act` holds the callbacks of the page: `look(pane, view)`, `take(pane)`, `close(pane)`, `again(pane)`, `rest()`. */
export class Pane {
  constructor(number, act) {
    Object.assign(this, { number, act, study: null, look: {}, hands: new Map(), pinched: false, quick: false, over: null });
    this.head = make("header");
    this.warnings = make("ul", { class: "warnings", "aria-label": "Warnings" });
    this.canvas = make("canvas", { tabindex: "0", role: "img" });
    this.message = make("div", { class: "message" });
    this.foot = make("div", { class: "foot" });
    this.readout = make("span", { class: "readout" });
    this.legend = make("span", { class: "legend" });
    this.foot.append(this.readout, this.legend);
    const film = make("div", { class: "film" }, this.canvas, this.message);
    this.element = make("article", { class: "pane" }, this.head, this.warnings, film, this.foot);
    new ResizeObserver(() => this.resize()).observe(film);
    this.listen();
  }

  get pixels() {
    return [this.canvas.width, this.canvas.height];
  }

  /** Set the canvas to the resolution of the screen. */
  resize() {
    this.ratio = Math.min(3, window.devicePixelRatio || 1);
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    this.canvas.width = Math.max(1, Math.round(clientWidth * this.ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * this.ratio));
    this.paint();
  }

  /** Show this study (or none) with the settings in `look`: model, finding, opacity, boxes, tool, two, active. */
  show(study, look) {
    this.study = study;
    this.look = look;
    this.element.classList.toggle("active", look.two && look.active);
    this.element.setAttribute("aria-label", study ? study.name : "No study");
    const found = study?.predictions.get(look.model);
    const unusual = (found?.image_warnings ?? []).map((one) => ["Image", one]);
    const warnings = found?.model_warning ? [...unusual, ["Model", found.model_warning]] : unusual;
    settle(this.head, [study?.id, look.two, study?.film && study.size, found?.tags], () => this.title());
    settle(this.warnings, warnings, () => warnings.map(([kind, one]) => make("li", {}, make("b", {}, kind), ` ${one}`)));
    this.warnings.hidden = !warnings.length;
    settle(this.message, [study?.id, study?.state, study?.error, !study?.film], () => this.told());
    this.paint();
  }

  title() {
    const { study, look } = this;
    const letter = look.two ? make("b", { class: "letter" }, LETTERS[this.number]) : null;
    if (!study) return [letter ?? "", make("span", { class: "soft" }, "Select a study")];
    const found = study.predictions.get(look.model);
    const facts = study.film ? [`${study.size[0]} × ${study.size[1]}`, tags(found?.tags)].filter(Boolean).join(" · ") : "";
    const close = make("button", { type: "button", "aria-label": `Close ${study.name}`, title: "Close this study (X)" }, "×");
    close.addEventListener("click", () => this.act.close(this));
    return [letter ?? "", make("span", { class: "name", title: study.name }, study.name), make("span", { class: "soft" }, facts), close];
  }

  told() {
    const { study } = this;
    if (!study) return [];
    if (study.state === "failed") {
      const again = make("button", { type: "button" }, "Try again");
      again.addEventListener("click", () => this.act.again(this));
      return [make("p", { class: "wrong" }, study.error), again];
    }
    return study.film ? [] : [make("p", { class: "soft" }, "Reading …")];
  }

  /** Draw immediately; fast enough for every pointer event. */
  paint() {
    const { study, canvas, look } = this;
    const context = canvas.getContext("2d");
    if (!study?.film) {
      context.fillStyle = "#000";
      context.fillRect(0, 0, ...this.pixels);
      fill(this.readout);
      settle(this.legend, [], () => []);
      canvas.setAttribute("aria-label", study ? study.name : "No image");
      return;
    }
    draw(context, study, look, this.pixels, this.ratio, this.quick);
    this.read();
  }

  /** The numbers below the image. */
  read() {
    const { study, look } = this;
    const { width, level, invert, zoom } = study.view;
    const scale = (placed(study.view, study.size, this.pixels).scale / this.ratio) * 100;
    const words = [`W ${width.toFixed(2)}  L ${level.toFixed(2)}`, `${scale.toFixed(0)} %`, invert ? "inverted" : ""];
    const value = this.over ? study.film.value(...this.over) : null;
    if (value !== null) words.push(`${place(this.over, study.size)}  ${value.toFixed(3)}`);
    this.readout.textContent = words.filter(Boolean).join("   ");
    const map = look.finding && study.map(look.model, look.finding);
    const boxes = look.boxes ? shownBoxes(study, look).slice(0, MOST) : [];
    const pending = look.explains && !map;
    settle(this.legend, [look.finding, pending, map?.error, map?.most, boxes], () => this.explained(map, pending, boxes));
    const seen = map?.canvas && look.opacity > 0 ? `; saliency map for ${plain(look.finding)}` : "";
    const label = `${study.name}; window ${width.toFixed(2)}, level ${level.toFixed(2)}, zoom ${(100 * zoom).toFixed(0)} %${seen}`;
    this.canvas.setAttribute("aria-label", label);
  }

  explained(map, pending, boxes) {
    const { look } = this;
    const parts = [];
    if (look.finding && pending) parts.push(make("span", {}, `Computing the saliency map for ${plain(look.finding)} …`));
    if (map?.error) parts.push(make("span", { class: "wrong" }, map.error));
    if (map?.canvas) parts.push(...(map.most ? [ramp(), make("span", {}, `Saliency for ${plain(look.finding)}`)] : [make("span", {}, `The saliency map for ${plain(look.finding)} is empty.`)]));
    if (map?.canvas && map.warning) parts.push(make("span", { class: "wrong", title: map.warning }, "coarse map"));
    return [...parts, ...boxes.map((box, at) => boxText(box, at + 1))];
  }

  listen() {
    const { canvas, hands } = this;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => {
        hands.delete(event.pointerId);
        if (hands.size) return;
        this.pinched = false;
        this.act.rest();
      });
    }
    canvas.addEventListener("pointerleave", () => {
      this.over = null;
      if (this.study?.film) this.read();
    });
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("dblclick", () => this.change(START));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("keydown", (event) => this.key(event));
    this.element.addEventListener("pointerdown", () => this.act.take(this));
    canvas.addEventListener("focus", () => this.act.take(this));
  }

  /** The position of a pointer in canvas pixels. */
  point(event) {
    const frame = this.canvas.getBoundingClientRect();
    return [(event.clientX - frame.left) * this.ratio, (event.clientY - frame.top) * this.ratio];
  }

  change(view) {
    if (this.study?.film) this.act.look(this, view);
  }

  down(event) {
    if (!this.study?.film) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.hands.set(event.pointerId, this.point(event));
    this.moving = event.button > 0 || event.shiftKey || this.look.tool === "move";
  }

  move(event) {
    const { study, hands } = this;
    if (!study?.film) return;
    const now = this.point(event);
    const before = hands.get(event.pointerId);
    if (!before) {
      if (event.pointerType !== "touch") this.hover(now);
      return;
    }
    this.quick = true;
    if (hands.size > 1) this.pinch(event.pointerId, now);
    else if (this.pinched) return; // the last finger of two does nothing more
    else if (this.moving) this.change(moved(study.view, study.size, this.pixels, now[0] - before[0], now[1] - before[1]));
    else {
      const side = Math.min(...this.pixels);
      this.change(dragged(study.view, (now[0] - before[0]) / side, (now[1] - before[1]) / side));
    }
    hands.set(event.pointerId, now);
  }

  hover([x, y]) {
    const { study } = this;
    const { scale, left, top } = placed(study.view, study.size, this.pixels);
    this.over = [(x - left) / scale / study.size[0], (y - top) / scale / study.size[1]];
    this.read();
  }

  /** Two-finger gesture: the midpoint pans and the distance zooms. */
  pinch(moving, now) {
    const { study, hands, pixels } = this;
    this.pinched = true;
    const other = [...hands].find(([id]) => id !== moving)[1];
    const was = hands.get(moving);
    const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
    const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
    const shifted = moved(study.view, study.size, pixels, (now[0] - was[0]) / 2, (now[1] - was[1]) / 2);
    this.change(zoomed(shifted, study.size, pixels, apart(now) / apart(was), middle));
  }

  wheel(event) {
    event.preventDefault();
    if (!this.study?.film) return;
    const lines = event.deltaMode === 1 ? 16 : 1;
    const times = Math.exp(-Math.max(-200, Math.min(200, event.deltaY * lines)) / 300);
    this.change(zoomed(this.study.view, this.study.size, this.pixels, times, this.point(event)));
  }

  zoom(times) {
    if (this.study?.film) this.change(zoomed(this.study.view, this.study.size, this.pixels, times));
  }

  fit() {
    const { zoom, x, y } = START;
    if (this.study) this.change({ ...this.study.view, zoom, x, y });
  }

  /** Arrow keys on the image: change the window, or pan with Shift. */
  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step || !this.study?.film || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const { view, size } = this.study;
    if (event.shiftKey) this.change(moved(view, size, this.pixels, -40 * this.ratio * step[0], -40 * this.ratio * step[1]));
    else this.change(windowed(view, view.width * 1.05 ** step[0], view.level + 0.02 * step[1]));
  }

  /** After a gesture, draw at full resolution. */
  rest() {
    this.quick = false;
    this.paint();
  }
}

const MOST = 12; // boxes that are listed below an image

const place = ([x, y], [width, height]) => `(${Math.floor(x * width)}, ${Math.floor(y * height)})`;

function boxText(box, number) {
  const what = box.around ? "at least half of the highest saliency" : `${plain(box.finding)} ${percent(box.score)}`;
  return make("span", { class: "box" }, make("b", {}, String(number)), ` ${what}`);
}

/** The colour scale of saliency, from low to high. */
function ramp() {
  const canvas = make("canvas", { class: "ramp", width: "60", height: "8", "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  for (let x = 0; x < 60; x += 1) {
    context.fillStyle = `rgb(${colour(x / 59).join(",")})`;
    context.fillRect(x, 0, 1, 8);
  }
  return canvas;
}
