/** 16-bit pixels displayed with a window, and saliency maps in colour. */

/** A displayed image. */
export class Film {
  constructor({ pixels, width, height, original }) {
    Object.assign(this, { pixels, width, height, original });
    this.release();
  }

  /** Discard everything but the pixels until the image is displayed again. */
  release() {
    Object.assign(this, { canvas: null, context: null, image: null, words: null, shown: "" });
  }

  prepare() {
    this.canvas = new OffscreenCanvas(this.width, this.height);
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(this.width, this.height);
    this.words = new Uint32Array(this.image.data.buffer);
  }

  /** The image as a canvas, displayed with this window. */
  through({ width, level, invert }) {
    const wanted = `${width} ${level} ${invert}`;
    if (wanted === this.shown) return this.canvas;
    if (!this.canvas) this.prepare();
    const table = grays(width, level, invert);
    const { pixels, words } = this;
    for (let at = 0; at < pixels.length; at += 1) words[at] = table[pixels[at]];
    this.context.putImageData(this.image, 0, 0);
    this.shown = wanted;
    return this.canvas;
  }

  /** The window for which 0.5 % of the pixels are black and 0.5 % are white. */
  auto() {
    const counts = new Uint32Array(65536);
    for (const value of this.pixels) counts[value] += 1;
    const edge = (share) => {
      let left = share * this.pixels.length;
      return counts.findIndex((each) => (left -= each) < 0) / 65535;
    };
    const [low, high] = [edge(0.005), edge(0.995)];
    return { width: Math.max(0.01, high - low), level: (low + high) / 2 };
  }

  /** The value (0 to 1) at a position given as fractions of the sides; null outside the image. */
  value(x, y) {
    const [column, row] = [Math.floor(x * this.width), Math.floor(y * this.height)];
    if (column < 0 || row < 0 || column >= this.width || row >= this.height) return null;
    return this.pixels[row * this.width + column] / 65535;
  }
}

/** A thumbnail of a study for the list of studies. */
export function small(film) {
  const side = 96;
  const scale = Math.min(side / film.width, side / film.height);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(film.width * scale));
  canvas.height = Math.max(1, Math.round(film.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(film.through({ width: 1, level: 0.5, invert: false }), 0, 0, canvas.width, canvas.height);
  return canvas;
}

const LITTLE = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** Lookup table from pixel value to colour: red, green, blue and opacity in one 32-bit word. */
function grays(width, level, invert) {
  const table = new Uint32Array(65536);
  const low = level - width / 2;
  for (let value = 0; value < 65536; value += 1) {
    const bright = Math.min(255, Math.max(0, Math.round((255 * (value / 65535 - low)) / width)));
    const gray = invert ? 255 - bright : bright;
    table[value] = LITTLE ? (0xff000000 | (gray * 0x010101)) >>> 0 : ((gray * 0x01010100) | 0xff) >>> 0;
  }
  return table;
}

// The colours of "inferno" without the palest, which would hide in bone. Their brightness rises, so they can be told apart
// in grayscale and with colour blindness.
const COLOURS = [
  [0, 0, 0, 4],
  [0.3, 87, 16, 110],
  [0.6, 188, 55, 84],
  [0.85, 241, 115, 29],
  [1, 251, 182, 40],
];

/** The colour for a saliency value from 0 to 1. */
export function colour(heat) {
  const upper = Math.max(1, COLOURS.findIndex(([place]) => place >= heat));
  const [from, to] = [COLOURS[upper - 1], COLOURS[upper]];
  const share = (heat - from[0]) / (to[0] - from[0]);
  return [1, 2, 3].map((at) => Math.round(from[at] + share * (to[at] - from[at])));
}

/** A saliency map as a canvas, transparent at low saliency, and its maximum (0 to 1). */
export async function warm(blob) {
  const read = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(read.width, read.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(read, 0, 0);
  const image = context.getImageData(0, 0, read.width, read.height);
  const strength = (heat) => Math.round(255 * Math.min(1, Math.max(0, (heat - 0.1) / 0.6)));
  const table = Array.from({ length: 256 }, (_, value) => [...colour(value / 255), strength(value / 255)]);
  let most = 0;
  for (let at = 0; at < image.data.length; at += 4) {
    most = Math.max(most, image.data[at]);
    image.data.set(table[image.data[at]], at);
  }
  context.putImageData(image, 0, 0);
  return { canvas, most: most / 255 };
}
