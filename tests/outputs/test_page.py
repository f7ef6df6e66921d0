"""The page in a real browser, at phone and desktop width."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindone_coca.outputs.html import write_html

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt install chromium"),
]

CARD_WIDTHS = {390: 358, 1280: 300}  # pixels: one column on a phone, four on a desktop


def browse(page: Path, *options: str) -> str:
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={page.parent / 'profile'}",
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.parametrize("width", CARD_WIDTHS)
def test_screenshot(tmp_path, records, provenance, width):
    write_html(tmp_path / "page.html", lambda: records, [], provenance)
    shot = tmp_path / "shot.png"
    browse(tmp_path / "page.html", f"--window-size={width},1000", f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape == (1000, width, 3)
    teal = np.abs(pixels - (0, 128, 128)).max(2) < 12  # the first card's frame
    rows, columns = np.flatnonzero(teal.any(1)), np.flatnonzero(teal.any(0))
    first = columns[columns < columns[0] + CARD_WIDTHS[width] + 5]
    assert first[-1] - first[0] == pytest.approx(CARD_WIDTHS[width] - 2, abs=8)
    assert rows[0] < 200  # right under the head


def test_nothing_is_wider_than_the_screen_and_the_filter_works(tmp_path, records, provenance):
    write_html(tmp_path / "page.html", lambda: records, [], provenance)
    page = (tmp_path / "page.html").read_text()
    check = """<script>
      const result = [document.documentElement.scrollWidth <= innerWidth, innerWidth];
      for (const words of ["dog BEACH", "cut short", "nothing at all", ""]) {
        box.value = words;
        box.dispatchEvent(new Event("input"));
        result.push(entries.filter((entry) => entry.getClientRects().length).length, count.textContent);
      }
      document.body.replaceChildren(result.join("|"));
    </script></body>"""
    (tmp_path / "check.html").write_text(page.replace("</body>", check))
    for width in (500, 1280):  # a desktop Chromium's window is no narrower
        dom = browse(tmp_path / "check.html", f"--window-size={width},1000", "--dump-dom")
        body = dom.split("<body>")[1].split("</body>")[0].strip()
        assert body.split("|") == [
            "true",
            str(width),
            "1",
            "1 of 8 shown",
            "1",
            "1 of 8 shown",
            "0",
            "0 of 8 shown",
            "8",
            "7 captions of 5 files, 1 failed",
        ]
