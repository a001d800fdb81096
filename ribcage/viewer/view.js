/** The view of a study: window, zoom and position. Views are immutable; each change returns a new one. */

/** The whole image with its full gray range. */
export const START = Object.freeze({ width: 1, level: 0.5, invert: false, zoom: 1, x: 0.5, y: 0.5 });

const within = (value, low, high) => Math.min(high, Math.max(low, value));

/** A wider or narrower, darker or brighter window. */
export const windowed = (view, width, level) => ({
  ...view,
  width: within(width, 0.005, 2),
  level: within(level, -0.5, 1.5),
});

/** The window after dragging by fractions of the canvas: wider to the right, brighter upwards. */
export const dragged = (view, right, down) =>
  windowed(view, view.width * Math.exp(2 * right), view.level + down * Math.max(0.1, view.width));

/** Scale and corner position of an image of (width, height) on a canvas. */
export function placed(view, [width, height], [wide, high]) {
  const scale = Math.min(wide / width, high / height) * view.zoom;
  return { scale, left: wide / 2 - view.x * width * scale, top: high / 2 - view.y * height * scale };
}

/** The view after panning by a number of canvas pixels. */
export function moved(view, size, canvas, right, down) {
  const { scale } = placed(view, size, canvas);
  const x = within(view.x - right / (size[0] * scale), 0, 1);
  return { ...view, x, y: within(view.y - down / (size[1] * scale), 0, 1) };
}

/** Zoom by a factor around a fixed point of the canvas. */
export function zoomed(view, size, canvas, times, [x, y] = [canvas[0] / 2, canvas[1] / 2]) {
  const zoom = within(view.zoom * times, 0.25, 40);
  const right = (x - canvas[0] / 2) * (1 - zoom / view.zoom);
  const down = (y - canvas[1] / 2) * (1 - zoom / view.zoom);
  return moved({ ...view, zoom }, size, canvas, right, down);
}
