#!/usr/bin/env node
// Runs the image of a Raspberry Pi Pico, unmodified, in the emulator rp2040js:
//
//     node firmware/pico.mjs IMAGE [OPTION...] [WORD...]
//
// The emulator simulates the crystal, both PLLs, the UARTs and SysTick. It counts the cycles of each instruction, but not the
// wait states of the flash. It is the npm package `rp2040js`; the environment variable RP2040JS names the folder in which it is
// installed (`npm install --prefix FOLDER rp2040js@1.4.1`).
//
// This file adds the devices that are connected to the chip: a debug probe, which reads the log by RTT and answers semihosting
// requests, and a serial adapter at the UART's bit rate. There is no boot ROM, so the program starts at its vector table.
//
//     WORD...       the program's command line
//     --log FILE    write the log to FILE in defmt's encoding
//     --uart        connect the UART to a free TCP port of this machine and print `uart 127.0.0.1:PORT`
//     --rtt         connect RTT's channel 1 in the same way and print `rtt 127.0.0.1:PORT`
//     --poll US     let the probe read the RAM every US microseconds of the chip's clock (default 1000)
//     --no-probe    connect no probe: the log is not read, and the run ends when the program sleeps forever
//
// At the end it prints how the program ended and how many cycles it took. It exits with the program's exit code.

import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { join } from "node:path";
import { parseArgs } from "node:util";

const SRAM = 0x20000000;
const FLASH = 0x10000000;
/** The address of the program's vector table, which follows the second stage of the boot loader. */
const VECTORS = 0x10000100;
const HARD_FAULT = 3;
/** The number of the UART in a pin's function multiplexer. */
const UART = 2;
/** The time between two searches for RTT's control block, in nanoseconds. */
const ATTACH_NANOS = 10e3;
/** The exit code if the arguments of this script are invalid. */
const USAGE = 2;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    log: { type: "string" },
    uart: { type: "boolean" },
    rtt: { type: "boolean" },
    poll: { type: "string", default: "1000" },
    "no-probe": { type: "boolean" },
  },
});
const [image, ...words] = positionals;
if (!image || !process.env.RP2040JS) {
  console.error("usage: RP2040JS=FOLDER node firmware/pico.mjs IMAGE [OPTION...] [WORD...]; see the file's first lines");
  process.exit(USAGE);
}
const require = createRequire(join(process.env.RP2040JS, "package.json"));
const { ConsoleLogger, LogLevel, RP2040 } = require("rp2040js");

const chip = new RP2040();
const { clock } = chip;
// Logs only errors, because the emulator would warn about the UART's DMA register.
chip.logger = new ConsoleLogger(LogLevel.Error, false);

/** Copies the segments of an ELF file to flash. */
function flash(elf) {
  const file = new DataView(elf.buffer, elf.byteOffset, elf.length);
  if (file.getUint32(0) !== 0x7f454c46) throw new Error(`${image}: not an ELF file`);
  const [headers, size, count] = [file.getUint32(28, true), file.getUint16(42, true), file.getUint16(44, true)];
  for (let i = 0; i < count; i++) {
    const header = headers + i * size;
    const [type, offset, , address, length] = [0, 4, 8, 12, 16].map((at) => file.getUint32(header + at, true));
    if (type === 1 && length > 0) chip.flash.set(elf.subarray(offset, offset + length), address - FLASH);
  }
}
flash(readFileSync(image));
if (options.log) writeFileSync(options.log, "");

const { core } = chip;
core.VTOR = VECTORS;
core.SP = chip.readUint32(VECTORS);
core.PC = chip.readUint32(VECTORS + 4) & ~1;

/** Prints a summary and ends this process. */
function end(how, code) {
  const { baudRate } = chip.uart[0];
  const [output, input] = chip.gpio;
  const function_ = (pin) => (pin.functionSelect === UART ? "UART" : `function ${pin.functionSelect}`);
  const pull = (pin) => (pin.pullupEnabled ? ", pulled up" : "");
  console.log(`UART0: ${baudRate} baud; GP0: ${function_(output)}; GP1: ${function_(input)}${pull(input)}`);
  console.log(`${how} after ${core.cycles} cycles`);
  process.exit(code);
}

/** Calls `callback` repeatedly by the chip's clock. Each call returns the nanoseconds until the next one. */
function every(nanos, callback) {
  const alarm = clock.createAlarm(() => alarm.schedule(callback()));
  alarm.schedule(nanos);
}

/** Offers a wire on a TCP port. Calls `received` with the bytes from the host, and returns a function that sends bytes to it. */
function offer(name, received) {
  let host = null;
  const server = createServer((socket) => {
    host = socket.setNoDelay(true);
    socket.on("data", received);
    socket.on("error", () => {});
    socket.on("close", () => (host = host === socket ? null : host));
  });
  server.listen(0, "127.0.0.1", () => console.log(`${name} 127.0.0.1:${server.address().port}`));
  return (bytes) => host?.write(bytes);
}

if (options.uart) {
  const uart = chip.uart[0];
  const toChip = [];
  const send = offer("uart", (bytes) => toChip.push(...bytes));
  uart.onByte = (byte) => send(Uint8Array.of(byte));
  // A byte takes ten bits. As on the chip, a byte is lost if the FIFO is full.
  every(0, () => {
    if (toChip.length > 0) uart.feedByte(toChip.shift());
    return uart.baudDivider > 0 ? 10e9 / uart.baudRate : 1e6;
  });
}

/** An RTT ring buffer in the chip's RAM, as the probe sees it: name, address, size, write position, read position, mode. */
class Ring {
  constructor(at) {
    this.at = at;
    [this.address, this.size] = [4, 8].map((field) => chip.readUint32(at + field));
  }

  get positions() {
    return [12, 16].map((field) => chip.readUint32(this.at + field));
  }

  block() {
    chip.writeUint32(this.at + 20, 2);
  }

  read() {
    const bytes = [];
    let [written, read] = this.positions;
    for (; read !== written; read = (read + 1) % this.size) bytes.push(chip.readUint8(this.address + read));
    chip.writeUint32(this.at + 16, read);
    return Uint8Array.from(bytes);
  }

  write(queue) {
    let [written, read] = this.positions;
    while (queue.length > 0 && (written + 1) % this.size !== read) {
      chip.writeUint8(this.address + written, queue.shift());
      written = (written + 1) % this.size;
    }
    chip.writeUint32(this.at + 12, written);
  }
}

let channels = null;

/** Finds RTT's control block by its name, as probes do. */
function attach() {
  const at = Buffer.from(chip.sram.buffer).indexOf("SEGGER RTT\0");
  if (at < 0) return;
  const ring = (i) => new Ring(SRAM + at + 24 + 24 * i);
  const ups = chip.readUint32(SRAM + at + 16);
  channels = { log: ring(0), up: ring(1), down: ring(ups + 1) };
  channels.log.block();
}

function readLog() {
  const bytes = channels?.log.read() ?? [];
  if (options.log && bytes.length > 0) appendFileSync(options.log, bytes);
}

if (!options["no-probe"]) {
  const toChip = [];
  const send = options.rtt ? offer("rtt", (bytes) => toChip.push(...bytes)) : () => {};
  every(ATTACH_NANOS, () => {
    if (!channels) {
      attach();
      return ATTACH_NANOS;
    }
    readLog();
    channels.down.write(toChip);
    const bytes = channels.up.read();
    if (bytes.length > 0) send(bytes);
    return 1000 * Number(options.poll);
  });
}

/** Answers a semihosting request: Arm's Semihosting for AArch32 and AArch64, 2023Q3. */
function semihost() {
  const [operation, parameters] = core.registers;
  const parameter = (i) => chip.readUint32(parameters + 4 * i);
  switch (operation) {
    case 0x15: {
      // SYS_GET_CMDLINE
      const [buffer, size] = [parameter(0), parameter(1)];
      const line = Buffer.from(`${words.join(" ")}\0`);
      if (line.length > size) return -1;
      line.forEach((byte, i) => chip.writeUint8(buffer + i, byte));
      chip.writeUint32(parameters + 4, line.length - 1);
      return 0;
    }
    case 0x18: // SYS_EXIT
    case 0x20: // SYS_EXIT_EXTENDED
      // The program may end before the probe searches for the first time.
      if (!channels) attach();
      readLog();
      return end("exit", operation === 0x20 ? parameter(1) : Number(parameters !== 0x20026));
    default:
      return -1;
  }
}

let unanswered = false;
chip.onBreak = (number) => {
  const breakpoint = chip.readUint16(core.PC - core.breakRewind) >> 8 === 0xbe;
  if (breakpoint && number === 0xab && !options["no-probe"]) {
    core.registers[0] = semihost();
  } else {
    // A breakpoint without a debugger, or an undefined instruction. The emulator does not raise the fault itself.
    unanswered ||= breakpoint;
    core.PC -= core.breakRewind;
    core.exceptionEntry(HARD_FAULT);
  }
};

function run() {
  const nanos = 1e9 / 125e6;
  for (let i = 0; i < 200000; i++) {
    if (!core.waiting) {
      clock.tick(core.executeInstruction() * nanos);
    } else if (unanswered) {
      end("asleep", 0);
    } else {
      clock.tick(clock.nanosToNextAlarm);
    }
  }
  setImmediate(run);
}
run();
