/**
 * The network as the module `lenet-web` (trainer/web) runs it. This file needs no page: Node imports it too.
 */

/** The error when a weights file is refused. Its message is the sentence that a board would give. */
export class Refusal extends Error {}

/** Returns the bytes of a text that a module returned: its address in the upper half, its length in the lower one. */
export function bytesAt(memory, place) {
  return new Uint8Array(memory.buffer, Number(place >> 32n), Number(place & 0xffffffffn));
}

const textAt = (memory, place) => new TextDecoder().decode(bytesAt(memory, place));

/** One weights file, checked, in an instance of the module of its own. */
export class Engine {
  #exports;
  #plan;

  /**
   * Checks a weights file as a board does at power-on: every check of the format, then the self-test.
   *
   * @param {WebAssembly.Module} module the network
   * @param {object} plan its layers, as the trainer describes them
   * @param {Uint8Array} file the weights file
   * @throws {Refusal} if the file is damaged or of another network, or if this machine computes other bits
   */
  constructor(module, plan, file) {
    const exports = new WebAssembly.Instance(module).exports;
    this.#exports = exports;
    this.#plan = plan;
    const address = exports.file(file.length);
    if (address === 0) throw new Refusal("there is no memory for the file");
    new Uint8Array(exports.memory.buffer, address, file.length).set(file);
    if (exports.load() !== 0) throw new Refusal(this.#text(0));
    this.name = this.#text(1);
    this.description = this.#text(2);
    this.dataset = this.#text(4);
    this.recipe = this.#text(6);
    this.classes = Array.from({ length: plan.classes }, (_, index) => this.#text(3, index));
    this.crc = exports.crc() >>> 0;
    /** The SHA-256 of the parameters that the file records, in hexadecimal. */
    this.recorded = hex(bytesAt(exports.memory, exports.text(5, 0)));
  }

  #text(what, index = 0) {
    return textAt(this.#exports.memory, this.#exports.text(what, index));
  }

  #floats(address, length) {
    return new Float32Array(this.#exports.memory.buffer, address, length);
  }

  /** Returns the bytes of the parameters as they lie in the module's memory. */
  get parameters() {
    return bytesAt(this.#exports.memory, this.#exports.parameters());
  }

  /** Returns the weights of an output of a layer, or of one of its maps. In int8 they are integers. */
  weights(layer, output) {
    const { kind, kernel, input } = this.#plan.layers[layer];
    const length = kind === "linear" ? input[0] * input[1] * input[2] : input[0] * kernel * kernel;
    return Float32Array.from({ length }, (_, index) => this.#exports.weight(layer, output * length + index));
  }

  /** Classifies a picture: one byte per channel, row and column. Returns views of the logits and of their softmax. */
  classify(pixels) {
    const { memory, pixels: place, forward, probabilities } = this.#exports;
    new Uint8Array(memory.buffer, place(), pixels.length).set(pixels);
    forward();
    return {
      logits: this.outputs(this.#plan.layers.length - 1),
      probabilities: this.#floats(probabilities(), this.#plan.classes),
    };
  }

  /** Returns the outputs of a layer for the last picture: a view, or of a hidden int8 layer the numbers that its bytes stand for. */
  outputs(layer) {
    const length = this.#plan.layers[layer].output.reduce((product, side) => product * side);
    const address = this.#exports.outputs(layer);
    switch (this.#exports.numbers(layer)) {
      case 0:
        return this.#floats(address, length);
      case 1: {
        const [zero, step] = [this.#exports.zero(layer), this.#exports.step(layer)];
        const bytes = new Uint8Array(this.#exports.memory.buffer, address, length);
        return Float32Array.from(bytes, (byte) => (byte - zero) * step);
      }
      default:
        throw new Error(`layer ${layer}: its outputs are numbers of a kind that this page does not know`);
    }
  }
}

export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
