"""Takes the README's picture of the page in which the network runs: live_picture.py TRAINER [--out docs/src/live.png]

It needs Chromium, pngquant and optipng, and is run manually.
"""

import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from chromium import Chromium  # noqa: E402

WIDTH = 1060


def main():
    trainer = sys.argv[1]
    out = pathlib.Path(sys.argv[3]) if sys.argv[2:3] == ["--out"] else ROOT / "docs/src/live.png"
    with tempfile.TemporaryDirectory() as folder, Chromium() as browser:
        page = pathlib.Path(folder, "page.html")
        subprocess.run([trainer, "page", ROOT / "data/lenet.weights", "--out", page], check=True)
        browser.view(WIDTH, 1500, scale=1.5)
        browser.open(page)
        browser.run("lenet.ready")
        # Select a shirt about which the network is not quite sure, and point at a value of the second convolution.
        browser.run('document.querySelectorAll("#live-strip button")[6].click()')
        x, y = browser.run(
            """(() => {
              const { left, top } = document.querySelector("#live-layer-1 canvas").getBoundingClientRect();
              return [left + 505, top + 20];
            })()"""
        )
        browser.pointer("mouseMoved", x, y)
        assert not browser.run('document.getElementById("live-card").hidden'), "the pointer is beside the value"
        top, bottom = browser.run(
            """[document.getElementById("live-strip"), document.getElementById("live-layers")].map(
              (element, index) => element.getBoundingClientRect()[["top", "bottom"][index]])"""
        )
        raw = pathlib.Path(folder, "raw.png")
        browser.picture(raw, is_beyond=False, x=0, y=top - 12, width=WIDTH, height=bottom - top + 30)
        subprocess.run(["pngquant", "--force", "--speed", "1", "--output", out, "256", raw], check=True)
        subprocess.run(["optipng", "-quiet", "-o7", "-strip", "all", out], check=True)
    print(f"{out}: {out.stat().st_size} bytes")


main()
