/** Client for the HTTP API: requests, responses, retries and the token. */

const PATIENCE = { GET: 300, POST: 20 }; // retries while the server starts or is busy
const KEPT = "ribcage-token";

/** An error response from the server. */
export class Refused extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

/** The server cannot be reached. */
export class Gone extends Error {}

/** Callbacks of the page: `busy(sentence, seconds)` while waiting for a busy server, `calm()` when it has
 * responded, `token(again)` → the token. */
export const meanwhile = { busy: () => {}, calm: () => {}, token: async () => null };

let asked = null; // one prompt for the token, however many requests wait for it

const kept = () => sessionStorage.getItem(KEPT);

/** A new token from the user; `used` is the one that was refused. */
async function token(used) {
  if (kept() !== used) return;
  asked ??= meanwhile.token(used !== null).then((entered) => sessionStorage.setItem(KEPT, entered));
  await asked;
  asked = null;
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

/** Send a request and repeat it while the server is busy. */
async function request(path, body = null) {
  for (let tries = 0; ; tries += 1) {
    const used = kept();
    const headers = used ? { Authorization: `Bearer ${used}` } : {};
    const method = body ? "POST" : "GET";
    const response = await sent(path, { method, body, headers, cache: "no-store" });
    if (response.status === 401) {
      await token(used);
    } else if (response.status === 503 && tries < PATIENCE[method]) {
      const seconds = Math.min(30, Math.max(0.2, Number(response.headers.get("Retry-After")) || 1));
      meanwhile.busy(await sentence(response), seconds);
      await pause(seconds);
    } else if (response.ok) {
      if (tries) meanwhile.calm();
      return response;
    } else {
      throw new Refused(await sentence(response), response.status);
    }
  }
}

/** Send a request; throws `Gone` if the server cannot be reached, `Refused` if it only aborted this request. */
async function sent(path, options) {
  try {
    return await fetch(path, options);
  } catch {
    if (options.body && (await alive())) {
      throw new Refused("The file could not be sent, because it is too large for the server or was changed on disk.", 0);
    }
    throw new Gone("The server cannot be reached.");
  }
}

/** Whether the server can be reached. */
export async function alive() {
  try {
    return (await fetch("/healthz", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

/** The error message in a response; for a single file, the error of this file. */
async function sentence(response) {
  try {
    const found = await response.json();
    return String(found.results?.[0]?.error ?? found.error ?? `The server returned status ${response.status}.`);
  } catch {
    return `The server returned status ${response.status}.`;
  }
}

/** A form with one file; the file name is sent as text. */
function form(file) {
  const made = new FormData();
  made.append("files", file, file.name);
  return made;
}

const query = (values) => new URLSearchParams(values).toString();

/** The models, and whether a token is needed. */
export const models = async () => (await request("/v1/models")).json();

/** The predictions of a model for a file. */
export async function predict(model, file) {
  const response = await (await request(`/v1/predict?${query({ model })}`, form(file))).json();
  const result = response.results[0];
  if (result.error) throw new Refused(String(result.error), 422);
  return { model: response.model, milliseconds: response.milliseconds, ...result };
}

/** The 16-bit pixels of a file, with at most `side` pixels on the longer side. */
export async function image(file, side) {
  const response = await request(`/v1/image?${query({ side })}`, form(file));
  const number = (name) => Number(response.headers.get(name));
  const [width, height] = [number("X-Width"), number("X-Height")];
  const bytes = await response.arrayBuffer();
  if (!(width > 0 && height > 0) || bytes.byteLength !== 2 * width * height) {
    throw new Refused("The image was not received completely.", 0);
  }
  const original = [number("X-Original-Width") || width, number("X-Original-Height") || height];
  return { width, height, original, pixels: little(bytes) };
}

/** Convert little-endian numbers on any machine. */
function little(bytes) {
  if (new Uint8Array(Uint16Array.of(1).buffer)[0] === 1) return new Uint16Array(bytes);
  const view = new DataView(bytes);
  return Uint16Array.from({ length: bytes.byteLength / 2 }, (_, at) => view.getUint16(2 * at, true));
}

/** The saliency map of a finding: a gray image as a blob, and boxes around its highest values. */
export async function explain(model, finding, file, side) {
  const found = await (await request(`/v1/explain?${query({ model, finding, side })}`, form(file))).json();
  const bytes = Uint8Array.from(atob(found.saliency_map), (letter) => letter.charCodeAt(0));
  return { boxes: found.boxes ?? [], warning: found.warning ?? "", blob: new Blob([bytes], { type: "image/png" }) };
}
