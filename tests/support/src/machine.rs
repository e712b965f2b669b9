//! An interpreter for PTX, which executes the PTX files in the repository and counts what they execute.
//!
//! It implements only what these files use: one-dimensional grids, full warps, `shfl.sync.bfly` over all lanes, one barrier, and
//! static and dynamic shared memory. The lanes of a warp run together. After a divergent branch, the lanes that are behind run
//! first, so that the lanes meet again where the branches join. Every address must be within a buffer or shared memory.
//!
//! `ex2.approx` and `rcp.approx` are computed exactly. Registers, caches, latencies and the driver's compiler are not modelled:
//! the counts are those of PTX instructions, not of a GPU's instructions.

use std::collections::HashMap;
use std::ops::AddAssign;

/// The number of lanes in a warp.
const LANES: usize = 32;

/// The values of a register, one per lane.
type Lanes = [u64; LANES];

/// Counts of what was executed. An instruction of a warp counts once for all its lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All instructions.
    pub instructions: u64,
    /// Fused multiply-add instructions (`fma.rn.f32`).
    pub fma: u64,
    /// Multiply-adds: the lanes that took part in these instructions.
    pub fma_lanes: u64,
    /// Instructions that read or write shared memory.
    pub shared: u64,
    /// The passes over the 32 banks that these instructions need. Vectors and bank conflicts need several passes.
    pub shared_passes: u64,
    /// Instructions that read or write global memory.
    pub global: u64,
    /// The bytes of all 32-byte sectors that reads from global memory touch, counted for each instruction separately.
    pub read_bytes: u64,
    /// The bytes of all 32-byte sectors that writes to global memory touch.
    pub written_bytes: u64,
    /// Barriers.
    pub barriers: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.instructions += other.instructions;
        self.fma += other.fma;
        self.fma_lanes += other.fma_lanes;
        self.shared += other.shared;
        self.shared_passes += other.shared_passes;
        self.global += other.global;
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
        self.barriers += other.barriers;
    }
}

/// Global memory.
#[derive(Default)]
pub struct Memory {
    bytes: Vec<u8>,
    /// For each byte, whether it belongs to a buffer.
    used: Vec<bool>,
}

impl Memory {
    /// Adds a buffer with these bytes, with a gap before and after it, and returns its address.
    pub fn buffer(&mut self, bytes: &[u8]) -> u64 {
        let address = self.bytes.len().next_multiple_of(256) + 256;
        self.bytes.resize(address, 0);
        self.used.resize(address, false);
        self.bytes.extend_from_slice(bytes);
        self.used.resize(self.bytes.len(), true);
        self.bytes.resize(self.bytes.len() + 256, 0);
        self.used.resize(self.bytes.len(), false);
        address as u64
    }

    /// Returns the first `len` bytes of a buffer.
    pub fn bytes(&self, address: u64, len: usize) -> &[u8] {
        &self.bytes[address as usize..][..len]
    }

    /// Returns the first `len` values of a buffer.
    pub fn floats(&self, address: u64, len: usize) -> Vec<f32> {
        bytemuck::pod_collect_to_vec(self.bytes(address, 4 * len))
    }
}

/// The memory that an instruction accesses.
#[derive(Clone, Copy, PartialEq)]
enum Space {
    Global,
    Shared,
}

type Function = fn(u64, u64, u64) -> u64;

#[derive(Clone, Copy)]
enum Action {
    /// Computes a function of up to three registers, lane by lane.
    Compute(Function),
    /// Loads values from the address in a register plus an offset: the memory, the number of values, the bytes of each, and the
    /// offset.
    Load(Space, usize, usize, u64),
    Store(Space, usize, usize, u64),
    Shuffle,
    Barrier,
    Branch(usize),
    Return,
}

struct Instruction {
    /// A predicate register, and the value that it must have for a lane to take part.
    guard: Option<(usize, bool)>,
    action: Action,
    /// The registers that are written.
    to: Vec<usize>,
    /// The registers that are read; for a store, the values and then the address.
    from: Vec<usize>,
    is_fma: bool,
}

/// A kernel with its arguments, ready to be launched.
pub struct Kernel {
    code: Vec<Instruction>,
    /// The initial values of the registers: constants, arguments, or a pattern.
    registers: Vec<Lanes>,
    thread: usize,
    block: usize,
    shared_bytes: usize,
}

impl Kernel {
    /// Parses the kernel `name` in `ptx`. The arguments are given as bits.
    pub fn new(ptx: &str, name: &str, arguments: &[u64]) -> Self {
        let (_, entry) = ptx
            .split_once(&format!(".entry {name}("))
            .expect("is there");
        let (_, body) = entry.split_once("\n{\n").expect("has a body");
        let (body, _) = body.split_once("\n}").expect("has an end");
        let mut parser = Parser::default();
        for (i, &argument) in arguments.iter().enumerate() {
            parser.symbols.insert(format!("{name}_param_{i}"), argument);
        }
        let [thread, block] = ["%tid.x", "%ctaid.x"].map(|special| parser.register(special));
        let lines: Vec<&str> = body.lines().map(str::trim).collect();
        let mut shared_bytes: usize = 0;
        // Dynamic shared memory comes after the static shared memory of the kernel.
        let at_launch = ptx
            .lines()
            .find_map(|line| line.strip_prefix(".extern .shared .align 16 .b8 "));
        let at_launch = at_launch.map(|rest| rest.trim_end_matches("[];"));
        for line in &lines {
            if let Some(rest) = line.strip_prefix(".shared .align 16 .b8 ") {
                let (symbol, size) = rest.split_once('[').unwrap();
                shared_bytes = shared_bytes.next_multiple_of(16);
                parser
                    .symbols
                    .insert(symbol.to_owned(), shared_bytes as u64);
                shared_bytes += size.trim_end_matches("];").parse::<usize>().unwrap();
            }
        }
        if let Some(symbol) = at_launch {
            shared_bytes = shared_bytes.next_multiple_of(16);
            parser
                .symbols
                .insert(symbol.to_owned(), shared_bytes as u64);
        }
        let is_code = |line: &&&str| line.ends_with(';') && !line.starts_with('.');
        let mut at = 0;
        for line in &lines {
            match line.strip_suffix(':') {
                Some(label) => _ = parser.labels.insert(label.to_owned(), at),
                None => at += usize::from(is_code(&line)),
            }
        }
        let code = lines.iter().filter(is_code);
        let code = code
            .map(|line| parser.instruction(line.trim_end_matches(';')))
            .collect();
        Self {
            code,
            registers: parser.registers,
            thread,
            block,
            shared_bytes,
        }
    }

    /// Executes `blocks` blocks of `threads` threads, one after another, each with `shared_bytes` bytes of dynamic shared memory.
    pub fn launch(
        &self,
        blocks: usize,
        threads: usize,
        shared_bytes: usize,
        memory: &mut Memory,
    ) -> Counts {
        assert!(threads.is_multiple_of(LANES));
        let mut counts = Counts::default();
        for block in 0..blocks {
            let mut shared = vec![0xff; self.shared_bytes + shared_bytes];
            let mut warps: Vec<Warp> = (0..threads / LANES)
                .map(|warp| {
                    let mut registers = self.registers.clone();
                    registers[self.thread] =
                        std::array::from_fn(|lane| (warp * LANES + lane) as u64);
                    registers[self.block] = [block as u64; LANES];
                    Warp {
                        registers,
                        groups: vec![(0, u32::MAX)],
                    }
                })
                .collect();
            while warps.iter().any(|warp| !warp.groups.is_empty()) {
                for warp in &mut warps {
                    warp.run(&self.code, memory, &mut shared, &mut counts);
                }
            }
        }
        counts
    }
}

/// A parser of the instructions, with everything that has been named so far.
#[derive(Default)]
struct Parser {
    names: HashMap<String, usize>,
    registers: Vec<Lanes>,
    symbols: HashMap<String, u64>,
    labels: HashMap<String, usize>,
}

impl Parser {
    fn register(&mut self, name: &str) -> usize {
        if let Some(&register) = self.names.get(name) {
            return register;
        }
        // A register contains a pattern until it is written. A constant is stored as a register with this value in all lanes.
        let value = match name {
            _ if name.starts_with('%') => 0xdead_dead_dead_dead,
            _ => self.constant(name),
        };
        self.registers.push([value; LANES]);
        self.names.insert(name.to_owned(), self.registers.len() - 1);
        self.registers.len() - 1
    }

    fn constant(&self, name: &str) -> u64 {
        if let Some(&value) = self.symbols.get(name) {
            return value;
        }
        match name.strip_prefix("0f") {
            Some(bits) => u64::from_str_radix(bits, 16).unwrap(),
            None => name.parse::<i64>().unwrap_or_else(|_| panic!("{name}?")) as u64,
        }
    }

    /// Parses an address such as `[%rd1+8]`, and returns the register (or constant) and the offset.
    fn address(&mut self, operand: &str) -> (usize, u64) {
        let inner = operand.trim_matches(['[', ']']);
        let (base, offset) = inner.split_once('+').unwrap_or((inner, "0"));
        (self.register(base), offset.parse::<i64>().unwrap() as u64)
    }

    fn instruction(&mut self, line: &str) -> Instruction {
        let (guard, line) = match line.strip_prefix('@') {
            None => (None, line),
            Some(rest) => {
                let (predicate, rest) = rest.split_once([' ', '\t']).unwrap();
                let wanted = !predicate.starts_with('!');
                let register = self.register(predicate.trim_start_matches('!'));
                (Some((register, wanted)), rest.trim())
            }
        };
        let (name, operands) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let operands: Vec<String> = operands
            .split([',', '{', '}'])
            .map(|operand| operand.trim().to_owned())
            .filter(|operand| !operand.is_empty())
            .collect();
        let parts: Vec<&str> = name.split('.').collect();
        let (mut to, mut from) = (Vec::new(), Vec::new());
        let action = match parts[..] {
            ["ret"] => Action::Return,
            ["bar", "sync"] => Action::Barrier,
            ["bra", ..] => Action::Branch(self.labels[&operands[0]]),
            ["ld", "param", _] => {
                to.push(self.register(&operands[0]));
                from.push(self.address(&operands[1]).0);
                Action::Compute(|a, _, _| a)
            }
            ["ld" | "st", space, .., kind] => {
                let space = match space {
                    "global" => Space::Global,
                    "shared" => Space::Shared,
                    _ => panic!("{line}"),
                };
                let bytes = kind[1..].parse::<usize>().unwrap() / 8;
                let count = operands.len() - 1;
                if parts[0] == "ld" {
                    to = operands[..count]
                        .iter()
                        .map(|name| self.register(name))
                        .collect();
                    let (base, offset) = self.address(&operands[count]);
                    from.push(base);
                    Action::Load(space, bytes, count, offset)
                } else {
                    let (base, offset) = self.address(&operands[0]);
                    from = operands[1..]
                        .iter()
                        .map(|name| self.register(name))
                        .collect();
                    from.push(base);
                    Action::Store(space, bytes, count, offset)
                }
            }
            ["shfl", "sync", "bfly", "b32"] => {
                to.push(self.register(operands[0].split('|').next().unwrap()));
                from = operands[1..]
                    .iter()
                    .map(|name| self.register(name))
                    .collect();
                Action::Shuffle
            }
            _ => {
                if name == "bfi.b32" {
                    let [at, len] = [3, 4].map(|i| operands[i].parse::<u32>().unwrap());
                    assert_eq!(at + len, 32, "{line}");
                }
                to.push(self.register(&operands[0]));
                from = operands[1..]
                    .iter()
                    .map(|name| self.register(name))
                    .collect();
                Action::Compute(function(name))
            }
        };
        if let Action::Compute(_) = action {
            from.resize(3, from[0]);
        }
        Instruction {
            guard,
            action,
            to,
            from,
            is_fma: name == "fma.rn.f32",
        }
    }
}

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn b(value: f32) -> u64 {
    value.to_bits().into()
}

/// Extends a value of 32 bits with zeros.
fn w(value: u32) -> u64 {
    value.into()
}

/// Returns the function that an instruction computes. If the instruction has fewer than three sources, the first one is repeated.
fn function(name: &str) -> Function {
    match name {
        "mov.f32" | "mov.b32" | "mov.u32" | "cvt.u32.u64" => |a, _, _| w(a as u32),
        "mov.u64" | "cvta.to.global.u64" => |a, _, _| a,
        "cvt.u64.u32" => |a, _, _| w(a as u32),
        "cvt.u64.u16" | "cvt.u32.u16" | "cvt.u16.u32" => |a, _, _| a & 0xffff,
        "cvt.rn.f32.u16" => |a, _, _| b(f32::from(a as u16)),
        "cvt.rn.f32.u32" => |a, _, _| b(a as u32 as f32),
        "cvt.rn.f32.s32" => |a, _, _| b(a as i32 as f32),
        "cvt.sat.f32.f32" => |a, _, _| match f(a) {
            x if x.is_nan() => 0,
            x => b(x.clamp(0.0, 1.0)),
        },
        "fma.rn.f32" => |x, y, z| b(f(x).mul_add(f(y), f(z))),
        "fma.rm.f32" => |x, y, z| {
            let exact = f64::from(f(x)) * f64::from(f(y)) + f64::from(f(z));
            let near = exact as f32;
            b(if f64::from(near) > exact {
                near.next_down()
            } else {
                near
            })
        },
        "add.f32" => |x, y, _| b(f(x) + f(y)),
        "sub.f32" => |x, y, _| b(f(x) - f(y)),
        "mul.f32" => |x, y, _| b(f(x) * f(y)),
        "div.rn.f32" => |x, y, _| b(f(x) / f(y)),
        "rcp.rn.f32" | "rcp.approx.ftz.f32" => |x, _, _| b(1.0 / f(x)),
        "sqrt.rn.f32" => |x, _, _| b(f(x).sqrt()),
        "abs.f32" => |x, _, _| b(f(x).abs()),
        "neg.f32" => |x, _, _| b(-f(x)),
        "ex2.approx.ftz.f32" => |x, _, _| b(f(x).exp2()),
        "add.s32" => |x, y, _| w((x as u32).wrapping_add(y as u32)),
        "sub.s32" => |x, y, _| w((x as u32).wrapping_sub(y as u32)),
        "mul.lo.s32" => |x, y, _| w((x as u32).wrapping_mul(y as u32)),
        // The low bits of `y`, and above them `x`. `instruction` checks that the bit field reaches the highest bit.
        "bfi.b32" => |x, y, at| w((x as u32) << at | (y as u32) & ((1 << at) - 1)),
        "mad.lo.s32" => |x, y, z| w((x as u32).wrapping_mul(y as u32).wrapping_add(z as u32)),
        "mul.wide.u16" => |x, y, _| (x & 0xffff) * (y & 0xffff),
        "mul.wide.u32" => |x, y, _| w(x as u32) * w(y as u32),
        "add.s64" => |x, y, _| x.wrapping_add(y),
        "sub.s64" => |x, y, _| x.wrapping_sub(y),
        "mul.lo.s64" => |x, y, _| x.wrapping_mul(y),
        "mul.hi.u64" => |x, y, _| ((u128::from(x) * u128::from(y)) >> 64) as u64,
        "and.b16" | "and.b32" | "and.b64" | "and.pred" => |x, y, _| x & y,
        "or.b32" | "or.b64" | "or.pred" => |x, y, _| x | y,
        "xor.b32" => |x, y, _| w((x ^ y) as u32),
        "not.b32" => |x, _, _| w(!x as u32),
        "not.pred" => |x, _, _| x ^ 1,
        "shl.b32" => |x, y, _| w((x as u32).checked_shl(y as u32).unwrap_or(0)),
        "shl.b64" => |x, y, _| x.checked_shl(y as u32).unwrap_or(0),
        "shr.u16" => |x, y, _| (x & 0xffff).checked_shr(y as u32).unwrap_or(0),
        "shr.u32" => |x, y, _| w((x as u32).checked_shr(y as u32).unwrap_or(0)),
        "shr.u64" => |x, y, _| x.checked_shr(y as u32).unwrap_or(0),
        "setp.eq.f32" => |x, y, _| u64::from(f(x) == f(y)),
        "setp.gt.f32" => |x, y, _| u64::from(f(x) > f(y)),
        "setp.ge.f32" => |x, y, _| u64::from(f(x) >= f(y)),
        // The result is true if x is less than y, or if one of them is NaN.
        "setp.ltu.f32" => |x, y, _| 1 - u64::from(f(x) >= f(y)),
        "setp.lt.f32" => |x, y, _| u64::from(f(x) < f(y)),
        "setp.eq.s32" | "setp.eq.b32" => |x, y, _| u64::from(x as u32 == y as u32),
        "setp.ne.s32" => |x, y, _| u64::from(x as u32 != y as u32),
        "setp.eq.s16" => |x, y, _| u64::from(x as u16 == y as u16),
        "setp.gt.u32" => |x, y, _| u64::from(x as u32 > y as u32),
        "setp.ge.u32" => |x, y, _| u64::from(x as u32 >= y as u32),
        "setp.lt.u32" => |x, y, _| u64::from((x as u32) < y as u32),
        "selp.f32" | "selp.b32" | "selp.u32" | "selp.b16" | "selp.u16" => {
            |x, y, p| w(if p == 0 { y } else { x } as u32)
        }
        _ => panic!("{name} is not known"),
    }
}

/// The threads of a warp, which run together if possible.
struct Warp {
    registers: Vec<Lanes>,
    /// The positions in the code, each with the mask of the lanes that are there. It is empty when all lanes have ended.
    groups: Vec<(usize, u32)>,
}

impl Warp {
    /// Runs until the next barrier or the end.
    fn run(
        &mut self,
        code: &[Instruction],
        memory: &mut Memory,
        shared: &mut [u8],
        counts: &mut Counts,
    ) {
        loop {
            // The lanes that are furthest behind run first. Groups at the same position are joined.
            let Some(&(at, _)) = self.groups.iter().min() else {
                return;
            };
            let here = self.groups.extract_if(.., |group| group.0 == at);
            let lanes = here.fold(0, |lanes, group| lanes | group.1);
            let instruction = &code[at];
            let active = match instruction.guard {
                None => lanes,
                Some((predicate, wanted)) => {
                    let values = &self.registers[predicate];
                    let holds = |lane: &usize| (values[*lane] != 0) == wanted;
                    (0..LANES)
                        .filter(holds)
                        .fold(0, |all, lane| all | 1 << lane)
                        & lanes
                }
            };
            counts.instructions += 1;
            let target = match instruction.action {
                Action::Return => None,
                Action::Branch(target) => Some(target),
                action => {
                    self.execute(instruction, action, active, memory, shared, counts);
                    Some(at + 1)
                }
            };
            if active != lanes {
                self.groups.push((at + 1, lanes & !active));
            }
            if let (Some(target), true) = (target, active != 0) {
                self.groups.push((target, active));
            }
            if let Action::Barrier = instruction.action {
                assert_eq!(active, u32::MAX, "a barrier that only some lanes reach");
                counts.barriers += 1;
                return;
            }
        }
    }

    fn execute(
        &mut self,
        instruction: &Instruction,
        action: Action,
        active: u32,
        memory: &mut Memory,
        shared: &mut [u8],
        counts: &mut Counts,
    ) {
        let lanes = (0..LANES).filter(|lane| active >> lane & 1 == 1);
        match action {
            Action::Compute(function) => {
                let [x, y, z] = [0, 1, 2].map(|i| self.registers[instruction.from[i]]);
                let to = &mut self.registers[instruction.to[0]];
                for lane in lanes {
                    to[lane] = function(x[lane], y[lane], z[lane]);
                }
                if instruction.is_fma {
                    counts.fma += 1;
                    counts.fma_lanes += u64::from(active.count_ones());
                }
            }
            Action::Load(space, bytes, count, offset) => {
                let base = self.registers[instruction.from[0]];
                let address = |lane: usize| base[lane].wrapping_add(offset) as usize;
                counts.access(space, bytes * count, lanes.clone().map(address), true);
                for lane in lanes {
                    let place = space.place(memory, shared, address(lane), bytes * count);
                    for (value, &to) in place.chunks(bytes).zip(&instruction.to) {
                        let mut wide = [0; 8];
                        wide[..bytes].copy_from_slice(value);
                        self.registers[to][lane] = u64::from_le_bytes(wide);
                    }
                }
            }
            Action::Store(space, bytes, count, offset) => {
                let base = self.registers[instruction.from[count]];
                let address = |lane: usize| base[lane].wrapping_add(offset) as usize;
                counts.access(space, bytes * count, lanes.clone().map(address), false);
                for lane in lanes {
                    let place = space.place(memory, shared, address(lane), bytes * count);
                    for (value, &from) in place.chunks_mut(bytes).zip(&instruction.from) {
                        value.copy_from_slice(&self.registers[from][lane].to_le_bytes()[..bytes]);
                    }
                }
            }
            Action::Shuffle => {
                assert_eq!(active, u32::MAX, "a shuffle that only some lanes reach");
                let [value, mask, width, all] =
                    [0, 1, 2, 3].map(|i| self.registers[instruction.from[i]]);
                assert!(width == [31; LANES] && all.iter().all(|&all| all as u32 == u32::MAX));
                self.registers[instruction.to[0]] =
                    std::array::from_fn(|lane| value[lane ^ mask[lane] as usize]);
            }
            Action::Barrier | Action::Branch(_) | Action::Return => {}
        }
    }
}

impl Space {
    fn place<'a>(
        self,
        memory: &'a mut Memory,
        shared: &'a mut [u8],
        address: usize,
        bytes: usize,
    ) -> &'a mut [u8] {
        assert!(
            address.is_multiple_of(bytes),
            "{address} is no multiple of {bytes}"
        );
        if self == Self::Shared {
            return &mut shared[address..address + bytes];
        }
        let used = memory.used.get(address..address + bytes);
        assert!(
            used.is_some_and(|used| !used.contains(&false)),
            "{address} is in no buffer"
        );
        &mut memory.bytes[address..address + bytes]
    }
}

impl Counts {
    /// Counts an instruction in which each lane accesses `bytes` bytes at its address.
    fn access(
        &mut self,
        space: Space,
        bytes: usize,
        addresses: impl Iterator<Item = usize>,
        reads: bool,
    ) {
        if space == Space::Global {
            let mut sectors: Vec<usize> = addresses.map(|address| address / 32).collect();
            sectors.sort_unstable();
            sectors.dedup();
            self.global += 1;
            let touched = match reads {
                true => &mut self.read_bytes,
                false => &mut self.written_bytes,
            };
            *touched += 32 * sectors.len() as u64;
            return;
        }
        // Each pass serves as many lanes as access 128 bytes, the width of all banks. Lanes that access the same word share it.
        let addresses: Vec<usize> = addresses.collect();
        self.shared += 1;
        for lanes in addresses.chunks(LANES * 4 / bytes.max(4)) {
            let words = lanes
                .iter()
                .flat_map(|address| (0..bytes.div_ceil(4)).map(move |i| address / 4 + i));
            let mut words: Vec<usize> = words.collect();
            words.sort_unstable();
            words.dedup();
            let mut banks = [0; 32];
            words.iter().for_each(|word| banks[word % 32] += 1);
            self.shared_passes += banks.iter().max().expect("there are banks");
        }
    }
}
