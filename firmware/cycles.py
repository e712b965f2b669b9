#!/usr/bin/env python3
"""Estimates the cycles of one `forward` on a Cortex-M4F: firmware/cycles.py ELF_OF_BENCH WEIGHTS

QEMU counts instructions, not cycles. This script runs `bench` on mps2-an386 and traces the basic blocks of `forward`, on the
last sample image, and of the functions that it calls. It adds up the cycles of the instructions according to Arm's Cortex-M4
Technical Reference Manual (DDI 0439, tables 3-1 and 7-1). Flash wait states are not included. The rules are:

* 12 cycles for SDIV and UDIV, 3 for VMLA, VMLS and VFMA, 14 for VDIV and VSQRT, and 1 for most other instructions; one more if an
  instruction uses the floating-point result of the one before it
* 2 cycles for a load or store, 1 if it follows another one, and 1 + n for n registers
* 1 cycle for a branch, and 2 more if it is taken (the pipeline refill takes 1 to 3)

The script needs qemu-system-arm (built with Capstone, like Debian's) and nm.
"""

import collections
import os
import re
import subprocess
import sys
import tempfile

# The forward pass and the functions that it may call. `bench` also runs the layers one by one, which is not counted.
FORWARD = "15measure_forward"
LAYERS = "16forward_by_layer"
FUNCTIONS = (FORWARD, "11description7forward", LAYERS, "10lenet_core5layer", "10lenet_core3ops", "4expf4expf")
FLOAT_RESULT = re.compile(r"v(add|sub|mul|ml|nml|fm|fnm|div|sqrt|cvt)")
TAKEN = 2


def ranges(elf):
    """Yields the name and the address range of each function."""
    for line in subprocess.check_output(["nm", "-S", elf], text=True).splitlines():
        words = line.split()
        if len(words) == 4 and any(name in words[3] for name in FUNCTIONS):
            start = int(words[0], 16) & ~1
            yield words[3], start, start + int(words[1], 16)


def registers(operands):
    """Returns the number of registers in a list such as {s0, s1} or {r4-r7, lr}."""
    count = 0
    for part in re.search(r"\{(.*)\}", operands).group(1).split(","):
        ends = [int(n) for n in re.findall(r"[rsd](\d+)", part)]
        count += ends[1] - ends[0] + 1 if len(ends) == 2 else 1
    return count


def cycles(name, operands, before):
    """Returns the cycles of an instruction. `before` is the previous one as (name, operands)."""
    stall = 0
    if before and FLOAT_RESULT.match(before[0]):
        result, *_ = before[1].split(",")
        sources = operands if name.startswith(("vstr", "vcmp", "vstm", "vpush")) else operands.partition(",")[2]
        if name.startswith(("vml", "vfm", "vnml", "vfnm")):
            sources = operands
        stall = int(re.search(rf"\b{result.strip()}\b", sources) is not None)
    memory = re.match(r"v?(ldr|str)(?!ex)", name)
    if re.match(r"v?(ldm|stm|push|pop)", name):
        return 1 + registers(operands) + stall
    if memory:
        pipelined = before and re.match(r"v?(ldr|str)", before[0])
        return (1 if pipelined else 2) + ("d" == operands[0] and name.startswith("v")) + stall
    if re.match(r"v(ml|nml|fm|fnm)", name):
        return 3 + stall
    if re.match(r"v(div|sqrt)", name):
        return 14 + stall
    if re.match(r"[su]div", name):
        return 12
    return 1 + stall


def main(elf, weights):
    functions = list(ranges(elf))
    forward = next(start for name, start, _ in functions if FORWARD in name)
    alone = [range(start, end) for name, start, end in functions if LAYERS in name]
    log = tempfile.NamedTemporaryFile(suffix=".log")
    wanted = ",".join(f"{start:#x}..{end - 1:#x}" for _, start, end in functions)
    subprocess.run(
        ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting-config",
         "enable=on,target=native,arg=bench,arg=icount,arg=0",
         "-kernel", elf, "-device", f"loader,file={weights},addr=0x200000,force-raw=on",
         "-d", "in_asm,exec,nochain", "-dfilter", wanted, "-D", log.name],
        check=True, stdout=subprocess.DEVNULL, timeout=300)

    blocks, runs, taken, listing, previous = {}, collections.Counter(), collections.Counter(), None, None
    counts = False
    for line in open(log.name):
        if line.startswith("IN:"):
            listing = []
        elif (found := re.match(r"0x([0-9a-f]+):\s+((?:[0-9a-f]{4} ?)+?)\s{2,}(\S+)\s*(.*)", line)) and listing is not None:
            address, code, name, operands = found.groups()
            listing.append((int(address, 16), len(code.split()) * 2, name, operands.strip()))
            blocks[listing[0][0]] = listing
        elif line.startswith("Trace"):
            start = int(re.search(r"\[[0-9a-f]+/([0-9a-f]+)/", line).group(1), 16) & ~1
            counts = (counts or start == forward) and not any(start in layer for layer in alone)
            if not counts:
                previous = None
                continue
            if previous is not None:
                address, size, *_ = blocks[previous][-1]
                taken[previous] += start != address + size
            runs[start] += 1
            previous = start

    instructions, total, kinds = 0, 0, collections.Counter()
    for start, count in runs.items():
        before = None
        for _, _, name, operands in blocks[start]:
            cost = cycles(name, operands, before)
            kinds[name.split(".")[0]] += count
            instructions, total, before = instructions + count, total + count * cost, (name, operands)
        total += TAKEN * taken[start]
    images = runs[forward]
    print(f"{images} runs; one: {instructions / images:.0f} instructions, about {total / images:.0f} cycles")
    print(", ".join(f"{name} {count / images:.0f}" for name, count in kinds.most_common(14)))


if __name__ == "__main__":
    if len(sys.argv) != 3 or not all(map(os.path.exists, sys.argv[1:])):
        sys.exit(__doc__)
    main(*sys.argv[1:])
