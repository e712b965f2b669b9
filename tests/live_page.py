"""Tests the page of `trainer page` in headless Chromium: live_page.py TRAINER WEIGHTS [--pictures FOLDER]

Compares the page with the trainer: the logits of 1,000 test images and of dropped pictures bit for bit, and the messages about files
that are rejected. Draws with the pointer and with the keyboard, and checks the page in several widths and both colour schemes. The
page must make no request, and no error may appear in the console.
"""

import base64
import gzip
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

from chromium import Chromium

ROOT = pathlib.Path(__file__).parent.parent
IMAGES = ROOT / "data/fashion-mnist/t10k-images-idx3-ubyte.gz"
COMPARED = 1000
WIDTHS = (390, 768, 1280, 1600)
MOST_BYTES = 450_000
# EXIF data which say that a picture is to be rotated by 90 degrees.
TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def png(width, height, kind, depth, rows, *chunks):
    """Returns a PNG file. `rows` are the bytes of each row; `chunks` come before the pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    parts = [head, *(chunk(*other) for other in chunks), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def noise(count, seed):
    """Returns bytes without a pattern, of which a quarter are 0."""
    state, out = seed, bytearray()
    for _ in range(count):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        out.append(state >> 24 if state >> 20 & 3 else 0)
    return bytes(out)


def bmp(width, height, rows):
    """Returns a BMP file of 24 bits per pixel."""
    padded = [row + bytes(-len(row) % 4) for row in rows]
    data = b"".join(reversed(padded))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(data), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def pictures():
    """Returns files of pictures, by name. A browser would change the pixels of many before a script can read them."""
    row = lambda n, width: [noise(n * width, seed + 1) for seed in range(28)]
    gamma = (b"gAMA", struct.pack(">I", 100_000))
    wide_gamut = (b"cHRM", struct.pack(">8I", 31270, 32900, 73470, 26530, 11500, 82600, 15700, 1800))
    turned = (b"eXIf", TURNED)
    palette = (b"PLTE", noise(3 * 256, 9))
    return {
        "grey.png": png(28, 28, 0, 8, row(1, 28)),
        "gamma.png": png(28, 28, 0, 8, row(1, 28), gamma),
        "transparent.png": png(28, 28, 6, 8, row(4, 28)),
        "wide-gamut.png": png(28, 28, 2, 8, row(3, 28), gamma, wide_gamut),
        "sixteen-bits.png": png(28, 28, 0, 16, row(2, 28)),
        "palette.png": png(28, 28, 3, 8, row(1, 28), palette),
        "turned.png": png(28, 28, 2, 8, row(3, 28), turned),
        "large.png": png(45, 28, 2, 8, row(3, 45)),
        "colour.bmp": bmp(28, 28, row(3, 28)),
        "large.bmp": bmp(45, 28, row(3, 45)),
        "grey.pgm": b"P5 28 28 255\n" + noise(28 * 28, 3),
        "colour.ppm": b"P6 28 28 255\n" + noise(3 * 28 * 28, 4),
        **{path.name: path.read_bytes() for path in (ROOT / "trainer/pictures/samples").glob("*.jpg")},
    }


class Check:
    def __init__(self, browser, trainer, weights, folder):
        self.browser, self.trainer, self.weights, self.folder = browser, trainer, weights, folder

    def trained(self, *arguments, code=0):
        done = subprocess.run([self.trainer, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == code, (arguments, done)
        return done.stdout if code == 0 else done.stderr

    def status(self):
        return self.browser.run('document.getElementById("live-status").textContent')

    def set(self, **options):
        for name, value in options.items():
            self.browser.run(f'document.getElementById("live-{name}").checked = {json.dumps(value)}')

    def drop(self, path):
        """Drops a file on the page and returns the message of the page."""
        self.browser.run('document.getElementById("live-status").textContent = ""')
        self.browser.drop(path)
        return self.answer()

    def answer(self):
        """Waits for the next message of the page."""
        return self.browser.run(
            """new Promise((resolve) => {
              const look = () => {
                const { textContent } = document.getElementById("live-status");
                if (textContent) resolve(textContent); else setTimeout(look, 10);
              };
              look();
            })"""
        )

    def logits_of_test_images(self, weights):
        file = self.folder / f"{weights.stem}.safetensors"
        self.trained("evaluate", weights, "--logits", file)
        data = file.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        (name,) = [name for name in json.loads(data[8 : 8 + length]) if name != "__metadata__"]
        begin = 8 + length + json.loads(data[8 : 8 + length])[name]["data_offsets"][0]
        images = gzip.decompress(IMAGES.read_bytes())[16:][: COMPARED * 784]
        found = self.browser.run(
            f"""lenet.ready.then(() => {{
              const images = Uint8Array.from(atob("{base64.b64encode(images).decode()}"), (c) => c.charCodeAt(0));
              let bytes = "";
              for (let at = 0; at < images.length; at += 784) {{
                const {{ logits }} = lenet.classify(images.subarray(at, at + 784));
                bytes += String.fromCharCode(...new Uint8Array(logits.buffer));
              }}
              return btoa(bytes);
            }})"""
        )
        found = base64.b64decode(found)
        assert len(found) == COMPARED * 40
        differ = [n for n in range(COMPARED) if found[40 * n :][:40] != data[begin + 40 * n :][:40]]
        assert not differ, f"images with other logits: {differ}"
        print(f"{COMPARED} of {COMPARED} test images have the logits of trainer evaluate {weights.name}, bit for bit")

    def both_kinds(self, int8):
        """Checks that a page with f32 and int8 weights runs those that are chosen or dropped."""
        page = self.folder / "both.html"
        self.trained("page", self.weights, "--int8", int8, "--out", page)
        self.browser.open(page)
        self.browser.run("lenet.ready")
        numbers = 'document.getElementById("live-numbers").textContent'
        assert self.browser.run(numbers) == "f32"
        self.browser.run("""document.querySelector('[name="live-kind"][value="int8"]').click()""")
        self.browser.run(
            f"""new Promise((resolve) => {{
              const look = () => {numbers} === "int8" ? resolve() : setTimeout(look, 10);
              look();
            }})"""
        )
        self.logits_of_test_images(int8)
        assert self.drop(self.weights) == f"{self.weights.name}: checked, and now in use."
        assert self.browser.run(numbers) == "f32"
        assert self.browser.run("""document.querySelector('[name="live-kind"]:checked').value""") == "f32"

    def jpegs(self):
        """Returns JPEG files, by name, as the browser encodes them: with half the resolution of the colours."""

        def encoded(width):
            colours = base64.b64encode(noise(4 * width * 28, 5)).decode()
            url = self.browser.run(
                f"""(() => {{
                  const colours = Uint8ClampedArray.from(atob("{colours}"), (c) => c.charCodeAt(0));
                  for (let at = 3; at < colours.length; at += 4) colours[at] = 255;
                  const canvas = document.createElement("canvas");
                  [canvas.width, canvas.height] = [{width}, 28];
                  canvas.getContext("2d").putImageData(new ImageData(colours, {width}, 28), 0, 0);
                  return canvas.toDataURL("image/jpeg", 0.8);
                }})()"""
            )
            return base64.b64decode(url.partition(",")[2])

        exif = b"Exif\0\0" + TURNED
        square = encoded(28)
        return {
            "colour.jpg": square,
            "turned.jpg": square[:2] + struct.pack(">HH", 0xFFE1, 2 + len(exif)) + exif + square[2:],
            "large.jpg": encoded(45),
        }

    def files(self):
        files = pictures() | self.jpegs()
        for name, content in files.items():
            path = self.folder / name
            path.write_bytes(content)
            for options in ([], ["--invert"], ["--resize"], ["--resize", "--invert"]):
                self.set(resize="--resize" in options, invert="--invert" in options)
                said = self.drop(path)
                if path.stem == "large" and "--resize" not in options:
                    error = self.trained("predict", self.weights, path, *options, code=1)
                    assert error.strip() == f"error: {path.parent}/{said}", (error, said)
                    continue
                (expected,) = json.loads(self.trained("predict", self.weights, path, *options, "--json"))
                found = self.browser.run(
                    """(() => {
                      const { probabilities } = lenet.classify(lenet.picture());
                      const names = [...document.querySelectorAll(".live-name")].map((name) => name.textContent);
                      return names.map((name, index) => [name, probabilities[index]]);
                    })()"""
                )
                top = expected["top"]
                assert said.startswith(f"{name}: the network says {top[0]['class']}."), (said, top)
                single = lambda number: struct.pack("<f", number)
                for guess in top:
                    assert single(dict(found)[guess["class"]]) == single(guess["confidence"]), (name, options, guess)
        print(f"{len(files)} pictures in PNG, JPEG, BMP and PNM files, each with four sets of options: as trainer predict")
        self.set(resize=True, invert=False)
        said = self.drop(self.folder / "large.png")
        dropped = self.browser.run("[...lenet.picture()]")
        self.browser.run('document.getElementById("live-clear").click()')
        content = base64.b64encode((self.folder / "large.png").read_bytes()).decode()
        self.browser.run(
            f"""(() => {{
              document.getElementById("live-status").textContent = "";
              const clipboardData = new DataTransfer();
              const bytes = Uint8Array.from(atob("{content}"), (c) => c.charCodeAt(0));
              clipboardData.items.add(new File([bytes], "large.png", {{ type: "image/png" }}));
              dispatchEvent(new ClipboardEvent("paste", {{ clipboardData }}));
            }})()"""
        )
        assert self.answer() == said
        assert self.browser.run("[...lenet.picture()]") == dropped, "a pasted picture differs from the dropped one"

    def refusals(self):
        before = self.browser.run("[...lenet.classify(lenet.picture()).logits]")
        good = self.weights.read_bytes()
        changed = lambda at, bytes: good[:at] + bytes + good[at + len(bytes) :]
        broken = {
            "damaged.weights": (changed(5000, bytes([good[5000] ^ 4])), "damaged: checksum "),
            "cut.weights": (good[:40_000], "truncated: ends after 40000 bytes"),
            "longer.weights": (good + b"more", "4 bytes follow the end of the file"),
            "foreign.weights": (changed(8, b"12345678" + good[16:20] + b"other\0"), "a file of the network `other`, this"),
            "empty.weights": (b"", "truncated: ends after 0 bytes"),
            "net.pt": (b"PK\x03\x04 and so on", "not a LeNet weights file (starts with 50 4b 03 04)"),
            "picture.gif": (b"GIF89a and so on", "no PNG, JPEG, BMP or PNM file (starts with "),
            "cut.png": (pictures()["grey.png"][:200], "broken PNG: "),
            "cut.jpg": (self.jpegs()["colour.jpg"][:-40], "truncated JPEG: "),
            "cut.bmp": (pictures()["colour.bmp"][:-40], "broken BMP: "),
        }
        for name, (content, sentence) in broken.items():
            path = self.folder / name
            path.write_bytes(content)
            command = "evaluate" if path.suffix in (".weights", ".pt") else "predict"
            rest = [] if command == "evaluate" else [path]
            error = self.trained(command, self.weights if rest else path, *rest, code=1)
            said = self.drop(path)
            assert said.startswith(f"{name}: {sentence}"), said
            # For a weights file, the message of the trainer also says what to do.
            assert error.strip().startswith(f"error: {path.parent}/{said}"), (error, said)
        assert self.browser.run("[...lenet.classify(lenet.picture()).logits]") == before, "a refused file changed something"
        assert self.drop(self.weights) == f"{self.weights.name}: checked, and now in use."
        # The trainer accepts f32 and int8, but a WebAssembly module only one of them, like a board.
        here, there = ("int8", "f32") if good[5] else ("f32", "int8")
        other = ROOT / {"f32": "data/lenet.weights", "int8": "data/lenet-int8.weights"}[there]
        assert self.drop(other) == f"{other.name}: its parameters are {there}, this program reads {here}"
        print(f"{len(broken)} damaged or foreign files are refused with the trainer's sentences")

    def by_hand(self):
        run = self.browser.run
        box = """(() => {
          const canvas = document.getElementById("live-picture");
          canvas.scrollIntoView({ block: "center" });
          const { left, top, width } = canvas.getBoundingClientRect();
          return [left, top, width / 28];
        })()"""
        run('document.getElementById("live-clear").click()')
        assert run("lenet.picture().every((value) => value === 0)")
        # Draw a pair of trousers: two wide legs and a waist.
        run('document.getElementById("live-pen").value = "2.4"')
        left, top, side = run(box)
        for line in ([(11, 4), (11, 25)], [(17, 4), (17, 25)], [(11, 4), (17, 4)]):
            points = [(left + x * side, top + y * side) for x, y in line]
            self.browser.pointer("mousePressed", *points[0], button="left", clickCount=1)
            self.browser.pointer("mouseMoved", *points[1], button="left", buttons=1)
            self.browser.pointer("mouseReleased", *points[1], button="left", clickCount=1)
        assert run('document.getElementById("live-answer").textContent') == "trouser"
        assert self.status() == "Drawn: the network says trouser."
        assert run("lenet.picture()[15 * 28 + 11]") == 255
        before = run("[...lenet.picture()]")
        for key in ("ArrowRight", "ArrowDown", " "):
            self.browser.send("Input.dispatchKeyEvent", type="keyDown", key=key)
            self.browser.send("Input.dispatchKeyEvent", type="keyUp", key=key)
        assert run("[...lenet.picture()]") != before
        assert self.status().startswith("Drawn at row 15, column 15: the network says "), self.status()
        # Draw a line down the middle, with a finger and with a pen.
        for device in ("touch", "pen"):
            run('document.getElementById("live-clear").click()')
            left, top, side = run(box)
            points = [(left + 14.5 * side, top + y * side) for y in (4, 25)]
            if device == "touch":
                for kind, at in (("touchStart", points[:1]), ("touchMove", points[1:]), ("touchEnd", [])):
                    touched = [{"x": x, "y": y} for x, y in at]
                    self.browser.send("Input.dispatchTouchEvent", type=kind, touchPoints=touched)
            else:
                pen = {"button": "left", "clickCount": 1, "pointerType": "pen"}
                self.browser.pointer("mousePressed", *points[0], **pen)
                self.browser.pointer("mouseMoved", *points[1], buttons=1, **pen)
                self.browser.pointer("mouseReleased", *points[1], **pen)
            assert run("[4, 14, 24].every((row) => lenet.picture()[row * 28 + 14] === 255)"), device
            assert self.status().startswith("Drawn: the network says "), self.status()
        print("a drawing by mouse is classified: trouser; finger, pen and keys draw, too")

    def units(self):
        """Checks that pointing at a value shows what it depends on."""
        run = self.browser.run
        x, y = run(
            """(() => {
              const canvas = document.querySelector("#live-layer-1 canvas");
              canvas.scrollIntoView({ block: "center" });
              const { left, top } = canvas.getBoundingClientRect();
              return [left + 3, top + 3];
            })()"""
        )
        self.browser.pointer("mouseMoved", x, y)
        assert run('document.getElementById("live-card-title").textContent') == "conv2, map 0, row 0, column 0"
        assert run('document.getElementById("live-card-sees").textContent') == "it depends on 16×16 pixels"
        assert "over 6 maps of conv1" in run('document.getElementById("live-card-reads").textContent')
        self.browser.pointer("mouseMoved", 2, 2)
        assert run('document.getElementById("live-card").hidden')
        run('document.querySelector("#live-layer-0 canvas").focus()')
        for _ in range(2):
            self.browser.send("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
        assert self.status().startswith("conv1, map 0, row 0, column 1: "), self.status()
        # Setting the focus scrolls the page, and scrolling hides the card of a unit.
        run('document.getElementById("live-bars").focus()')
        run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        for key in ("ArrowUp", "ArrowUp"):
            self.browser.send("Input.dispatchKeyEvent", type="keyDown", key=key)
        assert run('document.getElementById("live-card-title").textContent') == "fc3, bag"
        assert self.status().startswith("fc3, bag: "), self.status()
        self.browser.send("Input.dispatchKeyEvent", type="keyDown", key="Escape")
        assert run('document.getElementById("live-card").hidden')

    def looks(self, page, pictures):
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                self.browser.view(width, 1000, scheme)
                self.browser.open(page)
                self.browser.run("lenet.ready")
                wide = self.browser.run("document.documentElement.scrollWidth")
                assert wide <= width, f"{wide} pixels in a window of {width}"
                if pictures:
                    height = self.browser.run("document.documentElement.scrollHeight")
                    self.browser.picture(pictures / f"{width}-{scheme}.png", x=0, y=0, width=width, height=height)
        self.browser.view(1280, 1000, media="print")
        assert self.browser.run('getComputedStyle(document.getElementById("live")).display') == "none"
        self.browser.view(1280, 1000)

    def times(self):
        """Prints the time from choosing an image to the result on the page, for information."""
        times = self.browser.run(
            """[...document.querySelectorAll("#live-strip button")].map((button) => {
              const start = performance.now();
              button.click();
              return performance.now() - start;
            }).sort((a, b) => a - b)"""
        )
        print(f"from picking an image to the drawn answer: median {times[len(times) // 2]:.1f} ms, longest {times[-1]:.1f} ms")


def main():
    trainer, weights = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    pictures = pathlib.Path(sys.argv[4]) if sys.argv[3:4] == ["--pictures"] else None
    with tempfile.TemporaryDirectory() as folder, Chromium() as browser:
        check = Check(browser, trainer, weights, pathlib.Path(folder))
        page = check.folder / "page.html"
        check.trained("page", weights, "--out", page)
        assert page.stat().st_size <= MOST_BYTES, f"{page.stat().st_size} bytes"
        print(f"the page has {page.stat().st_size} bytes")
        check.looks(page, pictures)
        browser.open(page)
        check.logits_of_test_images(weights)
        check.times()
        check.by_hand()
        check.units()
        check.files()
        check.refusals()
        assert browser.run('document.getElementById("live-hash").textContent') in check.trained("summary", weights)
        if weights.read_bytes()[5] == 0:
            check.both_kinds(ROOT / "data/lenet-int8.weights")
        assert not browser.problems, browser.problems
        print("no request, no error in the console")


main()
