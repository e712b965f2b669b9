"""Draws the book's pictures: docs/pictures.py writes docs/src/pictures, and with --check compares with what is there.

Each picture is a function below. Figures that another file states are read from there, so that a picture cannot contradict it.
"""

import html
import pathlib
import re
import sys

BOOK = pathlib.Path(__file__).parent / "src"
ROOT = BOOK.parent.parent

STYLE = """\
text { font: 14px Roboto, "Helvetica Neue", Arial, sans-serif; fill: #1f2328; }
.small { font-size: 12px; fill: #59636e; }
.strong { font-weight: bold; }
.code { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 13px; }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.line { stroke: #59636e; stroke-width: 1; fill: none; }
.grid { stroke: #d8dee4; stroke-width: 1; fill: none; }
.thick { stroke-width: 2; fill: none; stroke-linejoin: round; }
.box { stroke: #59636e; stroke-width: 1; }
"""
BLUE, GREEN, ORANGE, GREY, WHITE = "#cfe2f9", "#d2ecd9", "#fbe0c8", "#eceff2", "#ffffff"


class Picture:
    """An SVG picture, with the origin at the top left."""

    def __init__(self, width, height, title):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def box(self, x, y, width, height, fill):
        self.parts.append(f'<rect class="box" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"/>')

    def text(self, x, y, words, style=""):
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{style}">{html.escape(words)}</text>')

    def path(self, points, style="line", color=None):
        at = " ".join(f"{x:g},{y:g}" for x, y in points)
        stroke = f' stroke="{color}"' if color else ""
        self.parts.append(f'<polyline class="{style}" points="{at}"{stroke}/>')

    def arrow(self, x1, y1, x2, y2):
        self.path([(x1, y1), (x2, y2)])
        along = ((x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1))
        back, side = (-7 * along[0], -7 * along[1]), (3.5 * along[1], 3.5 * along[0])
        corners = [(x2 + back[0] + side[0], y2 + back[1] + side[1]), (x2, y2), (x2 + back[0] - side[0], y2 + back[1] - side[1])]
        self.path(corners)

    def svg(self):
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', f"<title>{html.escape(self.title)}</title>"]
        lines += [f"<style>\n{STYLE}</style>", f'<rect width="{self.width}" height="{self.height}" fill="{WHITE}"/>']
        return "\n".join([*lines, *self.parts, "</svg>"]) + "\n"


def layers():
    """The layers of LeNet, from an image to the logits."""
    picture = Picture(860, 250, "The layers of LeNet")
    middle = 118

    def maps(x, side, count, words, below, fill):
        """A stack of square maps; returns where it ends."""
        step = 4
        shown = min(count, 6)
        top = middle - side / 2 - step * (shown - 1) / 2
        for at in reversed(range(shown)):
            picture.box(x + step * (shown - 1 - at), top + step * at, side, side, fill)
        width = side + step * (shown - 1)
        picture.text(x + width / 2, 212, words, "middle strong")
        picture.text(x + width / 2, 230, below, "middle small")
        return x + width

    def vector(x, height, words, below, fill):
        picture.box(x, middle - height / 2, 14, height, fill)
        picture.text(x + 7, 212, words, "middle strong")
        picture.text(x + 7, 230, below, "middle small")
        return x + 14

    def step(x, width, *words):
        picture.arrow(x + 6, middle, x + width - 6, middle)
        for at, line in enumerate(words):
            picture.text(x + width / 2, middle - 12 - 17 * (len(words) - 1 - at), line, "middle small")
        return x + width

    x = maps(24, 112, 1, "1 × 28 × 28", "image", GREY)
    x = step(x, 96, "conv1", "5 × 5", "max pool 2", "sigmoid")
    x = maps(x, 66, 6, "6 × 12 × 12", "6 maps", BLUE)
    x = step(x, 96, "conv2", "5 × 5", "max pool 2", "sigmoid")
    x = maps(x, 34, 16, "16 × 4 × 4", "256 values", BLUE)
    x = step(x, 96, "fc1", "linear", "sigmoid")
    x = vector(x, 130, "120", "outputs", GREEN)
    x = step(x, 92, "fc2", "linear", "sigmoid")
    x = vector(x, 96, "84", "outputs", GREEN)
    x = step(x, 92, "fc3", "linear")
    vector(x, 48, "10", "logits", ORANGE)
    return picture


def curves():
    """Loss and accuracies of the tutorial's training, by epoch."""
    line = r"epoch (\d+), loss ([\d.]+), train acc ([\d.]+), test acc ([\d.]+)"
    rows = [tuple(map(float, row)) for row in re.findall(line, (BOOK / "tutorial.md").read_text())]
    picture = Picture(560, 300, "Loss and accuracy by epoch")
    left, top, right, bottom = 50, 20, 430, 250
    at_x = lambda epoch: left + 20 + (epoch - 1) / (len(rows) - 1) * (right - left - 40)  # noqa: E731
    at_y = lambda value: bottom - value / 2 * (bottom - top)  # noqa: E731
    for tick in (0, 0.5, 1, 1.5, 2):
        picture.path([(left, at_y(tick)), (right, at_y(tick))], "grid")
        picture.text(left - 8, at_y(tick) + 5, f"{tick:g}", "end small")
    for epoch, *_ in rows:
        picture.text(at_x(epoch), bottom + 18, f"{epoch:g}", "middle small")
    picture.text((left + right) / 2, bottom + 38, "epoch", "middle")
    series = ((1, "loss", "#1f6fd0", 16), (2, "train acc", "#b5179e", 4), (3, "test acc", "#1a7f37", -15))
    for column, words, color, down in series:
        picture.path([(at_x(row[0]), at_y(row[column])) for row in rows], "thick", color)
        x, y = right - 12, at_y(rows[-1][column]) + 5 + down
        picture.path([(x + 2, y - 5), (x + 16, y - 5)], "thick", color)
        picture.text(x + 22, y, f"{words} {rows[-1][column]:.3f}")
    return picture


def memory():
    """The memory map of the default board, from its linker script."""
    script = (ROOT / "firmware/boards/microbit-v2/memory.x").read_text()
    region = r"(\w+)\s*: ORIGIN = 0x([0-9a-fA-F]+), LENGTH = (\d+)K"
    regions = {name: (int(start, 16), int(kilobytes)) for name, start, kilobytes in re.findall(region, script)}
    picture = Picture(860, 210, "Memory map of the micro:bit v2")

    def row(y, title, parts):
        picture.text(24, y - 12, title, "strong")
        x, width = 24, 812
        total = sum(regions[name][1] for name, *_ in parts)
        for name, words, fill in parts:
            start, kilobytes = regions[name]
            share = max(width * kilobytes / total, 210)
            if name == parts[-1][0]:
                share = 24 + width - x
            picture.box(x, y, share, 44, fill)
            picture.text(x + share / 2, y + 19, f"{name}, {kilobytes} KB", "middle strong")
            picture.text(x + share / 2, y + 36, words, "middle small")
            picture.text(x, y + 60, f"0x{start >> 16:04x}_{start & 0xFFFF:04x}", "code")
            x += share

    row(36, "Flash", [("FLASH", "code, constants, sample images", BLUE), ("WEIGHTS", "the weights file, read in place", ORANGE)])
    row(140, "RAM", [("STACK", "grows towards lower addresses", GREY), ("RAM", "statics: outputs of the layers, buffers of the log and the link", GREEN)])
    return picture


def strip(title, fields, note):
    """A row of fields, each with its width in the picture, name, description and color."""
    picture = Picture(860, 170, title)
    x = 24
    for width, size, name, words, fill in fields:
        picture.text(x + width / 2, 30, size, "middle small")
        picture.box(x, 40, width, 52, fill)
        picture.text(x + width / 2, 71, name, "middle strong")
        for line, word in enumerate(words.split("\n")):
            picture.text(x + width / 2, 110 + 15 * line, word, "middle small")
        x += width
    picture.text(24, 156, note, "small")
    return picture


def weights():
    """The layout of the weights file."""
    page = (ROOT / "lenet-core/WEIGHTS.md").read_text()
    parameters = re.search(r"\| 52 \| ([\d,]+) \| the parameters", page)[1]
    fields = [
        (64, "4", "magic", "LNET", GREY),
        (70, "1", "version", "2", GREY),
        (60, "1", "kind", "f32, int8", GREY),
        (42, "2", "0", "", GREY),
        (100, "8", "fingerprint", "of the network", GREY),
        (70, "4", "length", "of the\nparameters", GREY),
        (70, "32", "name", "of the\nnetwork", GREY),
        (134, parameters, "parameters", "little-endian f32,\nread in place", ORANGE),
        (130, "varies", "metadata", "classes, provenance,\nself-test", BLUE),
        (72, "4", "CRC-32", "of all\nbefore it", GREEN),
    ]
    return strip("The weights file", fields, "Numbers of bytes for the network lenet. The parameters start at offset 52.")


def frame():
    """A frame of the link between host and board."""
    fields = [
        (60, "1", "00", "start", GREY),
        (100, "1", "kind", "3e request,\n3c reply", BLUE),
        (100, "2", "length", "of the message", BLUE),
        (160, "4", "sequence number", "a reply repeats\nits request's", BLUE),
        (220, "length", "message", "a postcard enum:\nnumber, then fields", ORANGE),
        (112, "4", "CRC-32", "of kind to message", GREEN),
        (60, "1", "00", "end", GREY),
    ]
    picture = strip("A frame of the link", fields, "Numbers of bytes. COBS removes the zeros between the two marks and adds one byte for every 254 begun.")
    picture.path([(84, 128), (84, 136), (776, 136), (776, 128)])
    return picture


def main():
    drawn = {f.__name__: f().svg() for f in (layers, curves, memory, weights, frame)}
    folder = BOOK / "pictures"
    if sys.argv[1:] == ["--check"]:
        found = {path.stem: path.read_text() for path in folder.iterdir()}
        if found != drawn:
            names = sorted(name for name in found.keys() | drawn.keys() if found.get(name) != drawn.get(name))
            sys.exit(f"{folder}: differs in {', '.join(names)}; run docs/pictures.py and commit the result")
    else:
        for name, svg in drawn.items():
            (folder / f"{name}.svg").write_text(svg)


main()
