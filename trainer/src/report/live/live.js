/**
 * The part of the page in which the network runs: a picture goes in, by choice, by hand or by file, and the page shows what every
 * layer makes of it.
 */

import { fromBase85, unpacked, woven } from "./data.js";
import { Engine, Refusal, hex } from "./engine.js";
import { Pictures, Unreadable } from "./pictures.js";

const byId = (id) => document.getElementById(id);
const plan = JSON.parse(byId("live-plan").textContent);
const [CHANNELS, HEIGHT, WIDTH] = plan.input;
const AREA = HEIGHT * WIDTH;
const last = plan.layers.length - 1;

const stored = async (id) => unpacked(fromBase85(byId(id).textContent));

let engine;
let pictures;
/** The picture as the network gets it. */
const pixels = new Uint8Array(CHANNELS * AREA);
/** The file that the picture comes from, while its options may still change. */
let source = null;
/** The class of the picture, where it is known. */
let truth = null;
/** The unit that the reader points at. */
let unit = null;

// ---------------------------------------------------------------------------------------------------------- colours

/** Purple to yellow, evenly brighter: matplotlib's viridis at nine points. */
const RAMP = [0x440154, 0x472d7b, 0x3b528b, 0x2c728e, 0x21918c, 0x28ae80, 0x5ec962, 0xaddc30, 0xfde725].map((rgb) => [
  rgb >> 16,
  (rgb >> 8) & 255,
  rgb & 255,
]);

/** The colours of shares from 0 to 1 in 256 steps. */
const STEPS = Array.from({ length: 256 }, (_, step) => {
  const at = (step / 255) * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2);
  const mixed = RAMP[low].map((from, n) => Math.round(from + (RAMP[low + 1][n] - from) * (at - low)));
  return `rgb(${mixed})`;
});

/** Blue and red of the colour scheme, each in 256 steps from nothing. */
let signs;

function readSigns() {
  const style = getComputedStyle(document.documentElement);
  signs = ["--negative", "--positive"].map((name) => {
    const colour = style.getPropertyValue(name).trim();
    return Array.from({ length: 256 }, (_, step) => colour + step.toString(16).padStart(2, "0"));
  });
}

/** Returns the colour of a value in -1..=1: red adds, blue subtracts, as in the pictures of the kernels. */
const signed = (value) => signs[Number(value > 0)][Math.round(Math.min(Math.abs(value), 1) * 255)];

/** Returns a function from values to colours, and what to say about its range. */
function colours(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (low < 0) {
    const most = Math.max(-low, high);
    return { of: (value) => signed(value / most), low: -most, high: most };
  }
  const span = high - low || 1;
  return { of: (value) => STEPS[Math.round(((value - low) / span) * 255)], low, high };
}

// ----------------------------------------------------------------------------------------------------------- drawing

/** Makes a canvas so many CSS pixels large, sharp on dense screens, and returns its empty context. */
function prepared(canvas, width, height) {
  const ratio = Math.max(1, Math.round(window.devicePixelRatio));
  const sides = [width * ratio, height * ratio];
  if (canvas.width !== sides[0] || canvas.height !== sides[1]) {
    [canvas.width, canvas.height] = sides;
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Returns an image as a canvas of one pixel per pixel. */
function asCanvas(values, canvas = document.createElement("canvas")) {
  if (canvas.width !== WIDTH || canvas.height !== HEIGHT) [canvas.width, canvas.height] = [WIDTH, HEIGHT];
  const image = new ImageData(WIDTH, HEIGHT);
  for (let at = 0; at < AREA; at++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * at + channel] = values[at + (CHANNELS === 3 ? channel * AREA : 0)];
    }
    image.data[4 * at + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** The picture, pixel by pixel. */
const shown = document.createElement("canvas");

/** Draws the picture `side` CSS pixels per pixel, with a frame around a part of it. */
function drawPicture(canvas, side, part) {
  const context = prepared(canvas, WIDTH * side, HEIGHT * side);
  context.imageSmoothingEnabled = false;
  context.drawImage(asCanvas(pixels, shown), 0, 0, WIDTH * side, HEIGHT * side);
  if (!part) return;
  context.lineWidth = 2;
  context.strokeStyle = "#ffb000";
  const [x, y, width, height] = [part.left, part.top, part.right - part.left, part.bottom - part.top];
  context.fillStyle = "rgb(0 0 0 / 45%)";
  context.beginPath();
  context.rect(0, 0, WIDTH * side, HEIGHT * side);
  context.rect(x * side, y * side, width * side, height * side);
  context.fill("evenodd");
  context.strokeRect(x * side, y * side, width * side, height * side);
}

// ---------------------------------------------------------------------------------------------------------- the layers

/** Returns how many of `count` things to put side by side so that the last row is not nearly empty. */
const balanced = (count, most) => Math.ceil(count / Math.ceil(count / Math.max(1, Math.min(count, most))));

/** A picture of a layer's outputs. */
class View {
  constructor(index) {
    this.index = index;
    this.layer = plan.layers[index];
    const figure = byId(`live-layer-${index}`);
    this.canvas = figure.querySelector("canvas");
    this.range = figure.querySelector(".live-range");
    const [maps, rows, columns] = this.layer.output;
    this.isFlat = this.layer.kind === "linear";
    // A vector is drawn like one map of many rows.
    [this.maps, this.rows, this.columns] = this.isFlat ? [maps, 1, 1] : [maps, rows, columns];
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && choose(null));
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    this.canvas.addEventListener("blur", () => choose(null));
  }

  /** Chooses how large and where the maps are drawn: rows as wide as the page. */
  layOut(width) {
    const [least, most, gap] = this.isFlat ? [15, 22, 2] : [Math.max(34, this.columns * 5), 160, 6];
    this.across = balanced(this.maps, Math.floor((width + gap) / (least + gap)));
    const room = Math.min(Math.floor((width + gap) / this.across) - gap, most);
    this.side = Math.max(1, Math.floor(room / this.columns));
    const rest = (width - this.across * this.columns * this.side) / Math.max(this.across - 1, 1);
    this.gap = Math.min(rest, 2.5 * gap);
    this.pitch = [this.columns * this.side + this.gap, this.rows * this.side + Math.min(this.gap, gap)];
    this.down = Math.ceil(this.maps / this.across);
  }

  /** Returns where a unit is drawn. */
  place(map, row = 0, column = 0) {
    return [
      Math.round((map % this.across) * this.pitch[0]) + column * this.side,
      Math.round(Math.floor(map / this.across) * this.pitch[1]) + row * this.side,
    ];
  }

  draw() {
    const values = engine.outputs(this.index);
    const { of, low, high } = colours(values);
    this.range.textContent = `${short(low)} to ${short(high)}`;
    const size = [this.across * this.pitch[0] - this.gap, (this.down - 1) * this.pitch[1] + this.rows * this.side];
    const context = prepared(this.canvas, ...size.map(Math.round));
    let at = 0;
    for (let map = 0; map < this.maps; map++) {
      for (let row = 0; row < this.rows; row++) {
        for (let column = 0; column < this.columns; column++) {
          context.fillStyle = of(values[at++]);
          context.fillRect(...this.place(map, row, column), this.side, this.side);
        }
      }
    }
    if (unit?.layer === this.index) {
      const [map, row, column] = unit.at;
      const [x, y] = this.place(map, row, column);
      context.lineWidth = 2;
      context.strokeStyle = "#ffb000";
      context.strokeRect(x + 1, y + 1, Math.max(this.side - 2, 3), Math.max(this.side - 2, 3));
    }
  }

  #point(event) {
    const [x, y] = [event.offsetX, event.offsetY];
    const map = Math.floor(y / this.pitch[1]) * this.across + Math.min(Math.floor(x / this.pitch[0]), this.across - 1);
    const row = Math.floor((y % this.pitch[1]) / this.side);
    const column = Math.floor((x % this.pitch[0]) / this.side);
    const isOn = x >= 0 && y >= 0 && map < this.maps && row < this.rows && column < this.columns;
    choose(isOn ? { layer: this.index, at: [map, row, column] } : null);
  }

  #key(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape") choose(null);
    if (!step) return;
    event.preventDefault();
    let [map, row, column] = unit?.layer === this.index ? unit.at : [0, -step[0], -step[1]];
    // Over the edge of a map into the next one.
    [row, column] = [row + step[0], column + step[1]];
    if (column < 0 || column >= this.columns) map += Math.sign(step[1]);
    if (row < 0 || row >= this.rows) map += step[0] * this.across;
    if (map < 0 || map >= this.maps) return;
    row = (row + this.rows) % this.rows;
    column = (column + this.columns) % this.columns;
    choose({ layer: this.index, at: [map, row, column] }, true);
  }
}

const views = plan.layers.slice(0, last).map((_, index) => new View(index));

/** Returns the part of the picture that a unit depends on, its edges cut to the picture. */
function field(index, [, row, column]) {
  let [top, bottom, left, right] = [row, row + 1, column, column + 1];
  for (let at = index; at >= 0; at--) {
    const { kind, kernel, padding, window: pool } = plan.layers[at];
    if (kind === "linear") return { top: 0, bottom: HEIGHT, left: 0, right: WIDTH };
    [top, left] = [top * pool - padding, left * pool - padding];
    [bottom, right] = [bottom * pool + kernel - 1 - padding, right * pool + kernel - 1 - padding];
  }
  return {
    top: Math.max(top, 0),
    bottom: Math.min(bottom, HEIGHT),
    left: Math.max(left, 0),
    right: Math.min(right, WIDTH),
  };
}

/** Returns the weights that a unit multiplies its inputs with, as maps of some rows and columns. */
function kernel(index, [map]) {
  const { kind, kernel: side, input } = plan.layers[index];
  const values = engine.weights(index, map);
  if (kind === "conv2d") return { values, maps: input[0], rows: side, columns: side };
  if (input[1] * input[2] > 1) return { values, maps: input[0], rows: input[1], columns: input[2] };
  const columns = balanced(values.length, 20);
  return { values, maps: 1, rows: Math.ceil(values.length / columns), columns };
}

/** Shows what a unit sees and by which weights, beside it; or nothing. */
function choose(next, isByKey = false) {
  const before = unit;
  unit = next;
  if (JSON.stringify(before) === JSON.stringify(next)) return;
  for (const index of new Set([before?.layer, next?.layer])) views[index]?.draw();
  const card = byId("live-card");
  card.hidden = !unit;
  drawInput();
  if (!unit) return;

  const { layer: index, at } = unit;
  const { name, kind, output, input } = plan.layers[index];
  const value = engine.outputs(index)[(at[0] * output[1] + at[1]) * output[2] + at[2]];
  const { values, maps, rows, columns } = kernel(index, at);
  let most = 0;
  for (const weight of values) most = Math.max(most, Math.abs(weight));
  const title = kind === "conv2d" ? `${name}, map ${at[0]}, row ${at[1]}, column ${at[2]}` : `${name}, output ${at[0]}`;
  byId("live-card-title").textContent = index === last ? `${name}, ${classOf(at[0])}` : title;
  byId("live-card-value").textContent = String(Number(value.toPrecision(6)));
  const from = index === 0 ? "the picture" : plan.layers[index - 1].name;
  const over = maps > 1 ? ` over ${maps} maps` : "";
  byId("live-card-reads").textContent =
    kind === "conv2d"
      ? `its kernel: ${rows}×${columns} weights${over} of ${from}, up to ±${short(most)}`
      : `its weights: one for each of the ${input[0] * input[1] * input[2]} values of ${from}, up to ±${short(most)}`;

  const part = field(index, at);
  byId("live-card-sees").textContent =
    kind === "conv2d"
      ? `it depends on ${part.bottom - part.top}×${part.right - part.left} pixels`
      : "it depends on the whole picture";
  drawPicture(byId("live-card-picture"), Math.max(1, Math.floor(112 / Math.max(WIDTH, HEIGHT))), part);
  const across = balanced(maps, maps > 9 ? 8 : 3);
  const side = Math.max(3, Math.min(14, Math.floor(200 / (across * (columns + 1)))));
  const gap = Math.ceil(side / 2);
  const [wide, high] = [columns * side + gap, rows * side + gap];
  const context = prepared(byId("live-card-kernel"), across * wide - gap, Math.ceil(maps / across) * high - gap);
  values.forEach((weight, n) => {
    const [of, cell] = [Math.floor(n / (rows * columns)), n % (rows * columns)];
    const x = (of % across) * wide + (cell % columns) * side;
    const y = Math.floor(of / across) * high + Math.floor(cell / columns) * side;
    context.fillStyle = signed(weight / (most || 1));
    context.fillRect(x, y, side, side);
  });
  context.strokeStyle = "rgb(128 128 128 / 50%)";
  for (let map = 0; map < maps; map++) {
    const [x, y] = [(map % across) * wide, Math.floor(map / across) * high];
    context.strokeRect(x + 0.5, y + 0.5, columns * side - 1, rows * side - 1);
  }

  // Beside the unit, inside the window; what belongs to the answer, below it.
  const anchor = index === last ? byId("live-bars") : views[index].canvas;
  const box = anchor.getBoundingClientRect();
  const [x, y] = index === last ? [0, 0] : views[index].place(...at);
  const tall = index === last ? box.height : views[index].side;
  const { offsetWidth: width, offsetHeight: height } = card;
  const left = Math.min(Math.max(box.left + x - width / 3, 8), innerWidth - width - 8);
  const below = box.top + y + tall + 10;
  const top = below + height < innerHeight - 8 ? below : Math.max(box.top + y - height - 10, 8);
  card.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  if (isByKey) say(`${byId("live-card-title").textContent}: ${short(value)}; ${byId("live-card-sees").textContent}`);
}

// ---------------------------------------------------------------------------------------------------------- the answer

const classOf = (index) => engine.classes[index] || `class ${index}`;

/** A number in few digits. */
function short(value) {
  if (value === 0) return "0";
  return Math.abs(value) >= 1000 || Math.abs(value) < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

const bars = Array.from({ length: plan.classes }, (_, index) => {
  const row = byId("live-bars").appendChild(document.createElement("li"));
  const cell = (name) => {
    const span = row.appendChild(document.createElement("span"));
    span.className = name;
    return span;
  };
  const bar = { row, name: cell("live-name"), track: cell("live-track"), share: cell("live-share"), bits: cell("live-bits") };
  bar.fill = bar.track.appendChild(document.createElement("i"));
  row.addEventListener("pointerenter", () => choose({ layer: last, at: [index, 0, 0] }));
  row.addEventListener("pointerleave", () => choose(null));
  return bar;
});

const list = byId("live-bars");
list.addEventListener("keydown", (event) => {
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const next = unit?.layer === last ? unit.at[0] + step : step > 0 ? 0 : plan.classes - 1;
  if (next >= 0 && next < plan.classes) choose({ layer: last, at: [next, 0, 0] }, true);
});
list.addEventListener("blur", () => choose(null));

const bitsOf = new DataView(new ArrayBuffer(4));

function drawAnswer({ logits, probabilities }) {
  let best = 0;
  logits.forEach((logit, index) => {
    if (logit > logits[best]) best = index;
  });
  bars.forEach(({ row, name, fill, share, bits }, index) => {
    const text = classOf(index);
    if (name.textContent !== text) name.textContent = text;
    row.classList.toggle("is-best", index === best);
    row.classList.toggle("is-true", index === truth);
    fill.style.width = `${100 * probabilities[index]}%`;
    const percent = 100 * probabilities[index];
    share.textContent = `${percent === 100 ? "100.0" : Math.min(percent, 99.9).toFixed(1)} %`;
    bitsOf.setFloat32(0, logits[index]);
    bits.textContent = bitsOf.getUint32(0).toString(16).padStart(8, "0");
  });
  byId("live-answer").textContent = classOf(best);
  byId("live-truth").textContent =
    truth === null ? "" : truth === best ? "which is its label" : `but its label is ${classOf(truth)}`;
}

function drawInput() {
  const canvas = byId("live-picture");
  const room = canvas.parentElement.clientWidth;
  const side = Math.max(2, Math.floor(Math.min(room, 308) / Math.max(WIDTH, HEIGHT)));
  drawPicture(canvas, side, unit && field(unit.layer, unit.at));
  if (cursor && document.activeElement === canvas) {
    const context = canvas.getContext("2d");
    context.lineWidth = 2;
    context.strokeStyle = "#ffb000";
    context.strokeRect(cursor[0] * side + 1, cursor[1] * side + 1, side - 2, side - 2);
  }
}

/** Runs the network on the picture and shows everything. */
function run() {
  const start = performance.now();
  const answer = engine.classify(pixels);
  const computed = performance.now();
  drawInput();
  for (const view of views) view.draw();
  drawAnswer(answer);
  if (unit) {
    const same = unit;
    unit = null;
    choose(same);
  }
  byId("live-time").textContent =
    `${(computed - start).toFixed(1)} ms for this picture, ${(performance.now() - start).toFixed(1)} ms with drawing`;
}

/** Tells the reader, and a screen reader. */
function say(text, isAlarm = false) {
  const status = byId("live-status");
  status.textContent = text;
  status.classList.toggle("alarm", isAlarm);
}

// ---------------------------------------------------------------------------------------------------------- test images

async function fillStrip() {
  const images = await stored("live-images");
  const strip = byId("live-strip");
  plan.images.forEach(({ index, label }, n) => {
    const values = images.subarray(n * pixels.length, (n + 1) * pixels.length);
    const button = strip.appendChild(document.createElement("button"));
    button.type = "button";
    button.append(asCanvas(values));
    button.title = `test image ${index}: ${plan.labels[label]}`;
    button.setAttribute("aria-label", button.title);
    button.addEventListener("click", () => {
      source = null;
      truth = engine.classes.indexOf(plan.labels[label]);
      truth = truth < 0 ? null : truth;
      pixels.set(values);
      press(button);
      run();
      say(`Test image ${index}: the network says ${byId("live-answer").textContent}, ${byId("live-truth").textContent}.`);
    });
  });
  return strip.firstElementChild;
}

/** Marks the test image that is shown, if one is. */
function press(button) {
  for (const other of byId("live-strip").children) other.setAttribute("aria-pressed", String(other === button));
}

/** The picture is no longer one of the stored ones. */
function changed() {
  source = null;
  truth = null;
  press(null);
}

// ---------------------------------------------------------------------------------------------------------- by hand

/** Where the pen was, in pixels of the picture. */
let pen = null;
/** The pixel that the arrow keys have come to. */
let cursor = null;

/** Draws a line between two points, soft at its edge. */
function stroke([x0, y0], [x1, y1]) {
  const radius = Number(byId("live-pen").value);
  const isErasing = byId("live-erase").checked;
  const ink = hexColour(byId("live-ink")?.value ?? "#ffffff");
  const [dx, dy] = [x1 - x0, y1 - y0];
  const square = dx * dx + dy * dy;
  for (let y = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++) {
      const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
      const along = square === 0 ? 0 : Math.min(Math.max((px * dx + py * dy) / square, 0), 1);
      const distance = Math.hypot(px - along * dx, py - along * dy);
      const cover = Math.min(Math.max(radius + 0.5 - distance, 0), 1);
      if (cover === 0) continue;
      for (let channel = 0; channel < CHANNELS; channel++) {
        const at = channel * AREA + y * WIDTH + x;
        const to = isErasing ? 0 : ink[channel];
        const mixed = Math.round(pixels[at] + (to - pixels[at]) * cover);
        // Strokes that touch do not darken each other's edges.
        pixels[at] = isErasing ? Math.min(pixels[at], mixed) : CHANNELS === 1 ? Math.max(pixels[at], Math.round(to * cover)) : mixed;
      }
    }
  }
}

const hexColour = (text) => [1, 3, 5].map((at) => Number.parseInt(text.slice(at, at + 2), 16));

function drawByHand() {
  const canvas = byId("live-picture");
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * WIDTH, ((event.clientY - box.top) / box.height) * HEIGHT];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    cursor = null;
    pen = point(event);
    changed();
    stroke(pen, pen);
    run();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!pen) return;
    const points = event.getCoalescedEvents?.() ?? [];
    for (const at of points.length > 0 ? points : [event]) {
      const next = point(at);
      stroke(pen, next);
      pen = next;
    }
    run();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (pen) say(`Drawn: the network says ${byId("live-answer").textContent}.`);
      pen = null;
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) {
      cursor ??= [WIDTH >> 1, HEIGHT >> 1];
      cursor = [
        Math.min(Math.max(cursor[0] + step[0], 0), WIDTH - 1),
        Math.min(Math.max(cursor[1] + step[1], 0), HEIGHT - 1),
      ];
      drawInput();
    }
    if (event.key === " " && cursor) {
      changed();
      const at = [cursor[0] + 0.5, cursor[1] + 0.5];
      stroke(at, at);
      run();
      say(`Drawn at row ${cursor[1]}, column ${cursor[0]}: the network says ${byId("live-answer").textContent}.`);
    }
    if (step || event.key === " ") event.preventDefault();
  });
  canvas.addEventListener("blur", () => drawInput());
  byId("live-clear").addEventListener("click", () => {
    changed();
    pixels.fill(0);
    run();
    say("The picture is black. Draw with mouse, finger or pen, or with the arrow keys and the space bar.");
  });
}

// ---------------------------------------------------------------------------------------------------------- files

/** Takes a file that was dropped, pasted or chosen. */
async function take(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const isNamedSo = /\.(weights|safetensors|onnx|pt|pth|bin)$/i.test(file.name);
  const isWeights = isNamedSo || new TextDecoder("latin1").decode(bytes.subarray(0, 4)) === "LNET";
  try {
    if (isWeights) {
      await takeWeights(bytes);
      say(`${file.name}: checked, and now in use.`);
    } else {
      await takePicture({ name: file.name, bytes });
    }
  } catch (error) {
    if (!(error instanceof Refusal || error instanceof Unreadable)) throw error;
    say(`${file.name}: ${error.message}`, true);
  }
}

async function takePicture(file) {
  const options = { resize: byId("live-resize").checked, invert: byId("live-invert").checked };
  pictures ??= new Pictures(await WebAssembly.compile(await stored("live-pictures")));
  const { pixels: read, notes } = pictures.read(file.bytes, plan.input, options);
  changed();
  source = file;
  pixels.set(read);
  run();
  say([`${file.name}: the network says ${byId("live-answer").textContent}.`, ...notes].join(" Note: "));
}

async function takeWeights(bytes) {
  const numbers = plan.numbers.includes(NUMBERS[bytes[5]]) ? NUMBERS[bytes[5]] : plan.numbers[0];
  const { module, size } = await network(numbers);
  const next = new Engine(module, plan, bytes);
  const sha256 = await computedHash(next.parameters);
  if (sha256 !== null && sha256 !== next.recorded) {
    throw new Refusal(`its parameters have the SHA-256 ${sha256}, but the file records ${next.recorded}`);
  }
  engine = next;
  truth = null;
  byId("live-hash").textContent = next.recorded;
  byId("live-numbers").textContent = numbers;
  byId("live-size").textContent = size.toLocaleString("en");
  for (const kind of kinds) kind.checked = kind.value === numbers;
  byId("live-about").textContent = [next.dataset && `trained on ${next.dataset}`, next.recipe].filter(Boolean).join(", ");
  if (!byId("live-on").hidden) run();
}

/** The SHA-256 of the parameters, or `null` where the browser computes none for such a page. */
async function computedHash(parameters) {
  if (!globalThis.crypto?.subtle) return null;
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", parameters.slice())));
}

function takeFiles() {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const over = (isOver) => byId("live").classList.toggle("is-over", isOver);
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    over(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && over(false));
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    over(false);
    take(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) take(file);
  });
  byId("live-file").addEventListener("change", ({ target }) => {
    if (target.files[0]) take(target.files[0]);
    target.value = "";
  });
  byId("live-open").addEventListener("click", () => byId("live-file").click());
  for (const kind of kinds) kind.addEventListener("change", () => takeStored(kind.value));
  for (const option of ["live-resize", "live-invert"]) {
    byId(option).addEventListener("change", () => {
      if (source) take(new File([source.bytes], source.name));
    });
  }
}

// ---------------------------------------------------------------------------------------------------------- start

/** The kinds of numbers, by the byte in a weights file. */
const NUMBERS = ["f32", "int8"];
/** The choice between them, where the page has the network in several. */
const kinds = document.getElementsByName("live-kind");
const networks = new Map();

/** Returns the module for a kind of numbers, and its size in bytes. */
function network(numbers) {
  if (!networks.has(numbers)) {
    const bytes = stored(`live-network-${numbers}`);
    networks.set(
      numbers,
      bytes.then(async (bytes) => ({ module: await WebAssembly.compile(bytes), size: bytes.length })),
    );
  }
  return networks.get(numbers);
}

const takeStored = async (numbers) => takeWeights(woven(await stored(`live-weights-${numbers}`)));

function layOut() {
  const width = byId("live-layers").clientWidth;
  for (const view of views) view.layOut(width);
  if (engine) run();
}

async function start() {
  readSigns();
  await takeStored(plan.numbers[0]);
  byId("live-off").hidden = true;
  byId("live-on").hidden = false;
  layOut();
  const first = await fillStrip();
  if (first) first.click();
  else run();
  say("");
  drawByHand();
  takeFiles();
  addEventListener("resize", layOut);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readSigns();
    run();
  });
  addEventListener("keydown", (event) => event.key === "Escape" && choose(null));
  addEventListener("scroll", () => choose(null), { passive: true });
}

/** For the console: the network of this page. */
globalThis.lenet = {
  ready: start().catch((error) => {
    byId("live-off").textContent = `The network does not run in this browser: ${error.message}`;
    throw error;
  }),
  /** Returns the logits and the probabilities of an image: one byte per channel, row and column. */
  classify: (image) => {
    const { logits, probabilities } = engine.classify(image);
    return { logits: logits.slice(), probabilities: probabilities.slice() };
  },
  /** Returns the picture that is shown. */
  picture: () => pixels.slice(),
};
