/**
 * What the trainer stores in the page: compressed bytes as text, in base 85, which takes 6 % less room than base 64.
 */

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%()*+,-./:;=?@[]^_{|";

/** Returns the bytes of a text in base 85: five digits for four bytes, one digit more than bytes at the end. */
export function fromBase85(text) {
  const values = new Map(Array.from(DIGITS, (digit, value) => [digit, value]));
  const bytes = new Uint8Array(Math.floor((text.length * 4) / 5));
  for (let from = 0, to = 0; from < text.length; from += 5, to += 4) {
    let word = 0;
    for (let digit = from; digit < from + 5; digit++) word = word * 85 + (values.get(text[digit]) ?? 84);
    for (let byte = 0; byte < 4; byte++) bytes[to + byte] = Math.floor(word / 2 ** (24 - 8 * byte));
  }
  return bytes;
}

/** Returns the bytes that a gzip file holds. */
export async function unpacked(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Returns bytes of which every fourth stood together, as they compress better: first all first ones, then all second ones. */
export function woven(planes) {
  const bytes = new Uint8Array(planes.length);
  let from = 0;
  for (let plane = 0; plane < 4; plane++) {
    for (let to = plane; to < bytes.length; to += 4) bytes[to] = planes[from++];
  }
  return bytes;
}
