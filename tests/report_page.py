"""Tests the report of a run in headless Chromium, in the width of a phone and of a large screen: report_page.py report.html

Nothing may be wider than the page, every picture must be loaded, no script or style sheet may fail, and the network must run.
"""

import pathlib
import sys

from chromium import Chromium

MOST_BYTES = 530_000
PROBE = """({
  wide: document.documentElement.scrollWidth,
  pictures: document.images.length + document.querySelectorAll("svg").length,
  broken: [...document.images].filter((image) => !image.complete || image.naturalWidth === 0).length,
  text: document.body.innerText.length,
  answer: document.getElementById("live-answer").textContent,
  truth: document.getElementById("live-truth").textContent,
})"""


def main():
    page = pathlib.Path(sys.argv[1])
    print(f"{page.stat().st_size} bytes")
    assert page.stat().st_size <= MOST_BYTES
    with Chromium() as browser:
        for width in (390, 1280):
            browser.view(width)
            browser.open(page)
            browser.run("lenet.ready")
            seen = browser.run(PROBE)
            print(f"{width} pixels wide: {seen}")
            assert seen["wide"] <= width, "wider than the window"
            assert seen["pictures"] >= 4 and seen["broken"] == 0, "a picture is missing"
            assert seen["text"] > 1000, "no text"
            # The first image to choose from is one that the network classifies correctly.
            assert seen["answer"] and seen["truth"] == "which is its label"
        assert not browser.problems, browser.problems


main()
