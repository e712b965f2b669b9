/**
 * Pictures as images of the network, by the module `lenet-pictures` (trainer/web/pictures), which is the trainer's own code:
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
   * @param {Uint8Array} file the bytes of a PNG, JPEG or BMP file
   * @param {number[]} shape channels, rows and columns of the image
   * @param {{resize: boolean, invert: boolean}} options those of `trainer predict`
   * @returns {Promise<{pixels: Uint8Array, notes: string[]}>}
   * @throws {Unreadable}
   */
  async read(file, shape, { resize, invert }) {
    const is = (...start) => start.every((byte, index) => file[index] === byte);
    const jpeg = is(0xff, 0xd8, 0xff);
    let good;
    if (jpeg || (is(0x42, 0x4d) && file.subarray(6, 10).every((byte) => byte === 0))) {
      const { data, width, height } = await decoded(file, jpeg ? "JPEG" : "BMP");
      this.#put(data);
      good = this.#exports.convert(jpeg, width, height, ...shape, resize, invert);
    } else if (is(0x50) && file[1] >= 0x31 && file[1] <= 0x37) {
      throw new Unreadable("a PNM file, which a browser cannot decode; convert it to PNG, or use trainer predict");
    } else {
      this.#put(file);
      good = this.#exports.read(...shape, resize, invert);
    }
    const { memory, text, image } = this.#exports;
    const sentence = new TextDecoder().decode(bytesAt(memory, text()));
    if (!good) throw new Unreadable(sentence);
    return { pixels: bytesAt(memory, image()).slice(), notes: sentence.split("\n").filter(Boolean) };
  }

  #put(bytes) {
    const address = this.#exports.allocate(bytes.length);
    new Uint8Array(this.#exports.memory.buffer, address, bytes.length).set(bytes);
  }
}

/** The pixels of a picture that the browser decodes and turns as its EXIF orientation says. */
async function decoded(file, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([file]), { colorSpaceConversion: "none" });
  } catch {
    throw new Unreadable(`broken ${name}: the browser cannot decode it`);
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}
