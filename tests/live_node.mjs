// The network's WebAssembly module in Node, by the page's own code, against the trainer's logits of all test images:
//
//     node tests/live_node.mjs PAGE MODULE WEIGHTS LOGITS IMAGES
//
// PAGE is what `trainer page` wrote, LOGITS what `trainer evaluate --logits` wrote, IMAGES a gzipped IDX file.
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

const [page, module, weights, logits, images] = process.argv.slice(2).map((path) => readFileSync(path));
const script = readFileSync(new URL("../trainer/src/report/live/engine.js", import.meta.url));
// As a module, whatever the file is called.
const { Engine } = await import(`data:text/javascript;base64,${script.toString("base64")}`);

const plan = JSON.parse(/id="live-plan">(.*?)<\/script>/s.exec(page.toString())[1]);
const engine = new Engine(new WebAssembly.Module(module), plan, new Uint8Array(weights));
const header = Number(logits.readBigUInt64LE());
const pixels = gunzipSync(images).subarray(16);
const [size, row] = [plan.input.reduce((product, side) => product * side), 4 * plan.classes];
const count = pixels.length / size;
let equal = 0;
for (let index = 0; index < count; index++) {
  const { logits: found } = engine.classify(pixels.subarray(index * size, (index + 1) * size));
  const expected = logits.subarray(8 + header + index * row, 8 + header + (index + 1) * row);
  equal += Number(expected.equals(Buffer.from(found.buffer, found.byteOffset, row)));
}
console.log(`${equal} of ${count} test images have the logits of trainer evaluate, bit for bit`);
process.exit(equal === count && count === 10_000 ? 0 : 1);
