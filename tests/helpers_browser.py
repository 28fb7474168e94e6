"""A page as a browser lays it out."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium is installed (Debian: apt-get install chromium)"
)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
# The page stands in frames of the widths asked for; what a script finds there becomes text.
_FRAMES = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">{frames}
<pre id="found"></pre><script>
const look = (document, window) => {{ {script} }};
window.addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(
    (one) => look(one.contentDocument, one.contentWindow));
  document.querySelector("#found").textContent = JSON.stringify(found);
}});
</script>"""


def _run(folder: Path, *arguments: str) -> str:
    assert BROWSER is not None
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [BROWSER, *_FLAGS, profile, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def looked_at(page: str, folder: Path, script: str, widths: tuple[int, ...]) -> list[Any]:
    """What a script returns for a page, of `document` and `window`, at each width in pixels."""
    frames = "".join(
        f'<iframe srcdoc="{html.escape(page)}" style="width:{w}px;height:900px;border:0"></iframe>'
        for w in widths
    )
    path = folder / "frames.html"
    path.write_text(_FRAMES.format(frames=frames, script=script), encoding="utf-8")
    shown = _run(folder, "--window-size=1500,1000", "--dump-dom", path.as_uri())
    found = re.search(r'<pre id="found">(.*?)</pre>', shown, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found[1]))


def screenshot(page: Path, target: Path, width: int, height: int) -> None:
    """A picture of the top of a page."""
    frame = target.with_suffix(".html")
    style = f"width:{width}px;height:{height}px;border:0"
    text = html.escape(page.read_text(encoding="utf-8"))
    frame.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">'
        f'<iframe srcdoc="{text}" style="{style}"></iframe>',
        encoding="utf-8",
    )
    size = f"--window-size={max(width, 500)},{height}"
    _run(target.parent, size, f"--screenshot={target}", frame.as_uri())
    frame.unlink()
