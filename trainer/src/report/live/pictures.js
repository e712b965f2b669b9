/**
 * Pictures as images of the network, by the crate `lenet-pictures`, which the trainer uses, too, and trainer/web/pictures exports:
 * what comes out is what `trainer predict` makes of the file.
 */

import { bytesAt } from "./engine.js";

/** The error when a file is no picture that the network can take. */
export class Unreadable extends Error {}

export class Pictures {
  #exports;

  /** @param {WebAssembly.Module} module the reader of pictures */
  constructor(module) {
    this.#exports = new WebAssembly.Instance(module).exports;
  }

  /**
   * Reads a picture.
   *
   * @param {Uint8Array} file the bytes of a PNG, JPEG, BMP or PNM file
   * @param {number[]} shape channels, rows and columns of the image
   * @param {{resize: boolean, invert: boolean}} options those of `trainer predict`
   * @returns {{pixels: Uint8Array, notes: string[]}}
   * @throws {Unreadable}
   */
  read(file, shape, { resize, invert }) {
    const address = this.#exports.allocate(file.length);
    new Uint8Array(this.#exports.memory.buffer, address, file.length).set(file);
    const good = this.#exports.read(...shape, resize, invert);
    const { memory, text, image } = this.#exports;
    const sentence = new TextDecoder().decode(bytesAt(memory, text()));
    if (!good) throw new Unreadable(sentence);
    return { pixels: bytesAt(memory, image()).slice(), notes: sentence.split("\n").filter(Boolean) };
  }
}
