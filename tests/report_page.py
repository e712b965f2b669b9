"""Opens a run's report in headless Chromium, as wide as a phone and as a desk's screen: report_page.py report.html

Nothing may be wider than the page, every picture must be there, and no script or style may fail.
"""

import html
import json
import pathlib
import re
import subprocess
import sys
import tempfile

WIDTHS = (390, 1280)
PROBE = """
<title>waiting</title>
{frames}
<script>
addEventListener("load", () => {{
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map((frame) => {{
    const page = frame.contentDocument;
    return {{
      wide: page.documentElement.scrollWidth,
      pictures: page.images.length + page.querySelectorAll("svg").length,
      broken: [...page.images].filter((image) => !image.complete || image.naturalWidth === 0).length,
      text: page.body.innerText.length,
    }};
  }}));
}});
</script>
"""


def main():
    page = pathlib.Path(sys.argv[1]).read_text()
    frame = '<iframe style="border: 0; width: {}px; height: 900px" srcdoc="{}"></iframe>'
    frames = "".join(frame.format(width, html.escape(page)) for width in WIDTHS)
    with tempfile.TemporaryDirectory() as folder:
        probe = pathlib.Path(folder, "probe.html")
        probe.write_text(PROBE.format(frames=frames))
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        command += ["--virtual-time-budget=10000", "--dump-dom", f"file://{probe}"]
        dom = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120).stdout
    title = html.unescape(re.search("<title>(.*?)</title>", dom.decode()).group(1))
    for width, seen in zip(WIDTHS, json.loads(title), strict=True):
        print(f"{width} pixels wide: {seen}")
        assert seen["wide"] <= width, "wider than the window"
        assert seen["pictures"] >= 4 and seen["broken"] == 0, "a picture is missing"
        assert seen["text"] > 1000, "no text"


main()
