"""Make the pictures of the README from the real page: `python tests/pictures.py`.

Starts the program in practice mode in a temporary folder, trains, and keeps what
the browser shows under docs/pictures/.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import Program, pictures  # noqa: E402

SETTINGS = {
    "trigger_word": "ohwx",
    "prompt": "a red ball",
    "output_name": "red_ball",
    "resolution": "512x512",
    "samples_enabled": True,
    "sample_prompt_text": "{{trigger}}, a red ball on a soft background\n{{trigger}}, a red ball",
    "sample_at_first": True,
}
SIZES = {"page": (1366, 900), "phone": (390, 844)}


def prepare(server: Program) -> None:
    """A folder of eight captioned images, its settings as the form's draft, and a run under way."""
    server.post("/api/projects", {"name": "red ball"})
    for image in server.upload("red ball", pictures(8)).json()["added"]:
        caption = {"text": "a red ball on a soft, blurred background"}
        server.put(f"/api/projects/red ball/images/{image['name']}/caption", caption)
    draft = {**SETTINGS, "output_dir": "red ball"}
    server.put("/api/config", {"name": "draft-red ball", "settings": draft})
    job = server.post("/api/projects/red ball/train", {"settings": SETTINGS})["id"]
    while (server.get(f"/api/jobs/{job}")["progress"]["step"] or 0) < 300:
        pass


def take(server: Program) -> None:
    """Photograph each view as it stands in mid-run."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("MUSUBITLX_CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        for name, (width, height) in SIZES.items():
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, color_scheme="dark")
            page.goto(server.url + "/?project=red%20ball")
            page.get_by_text("Live").wait_for()
            page.wait_for_timeout(800)
            with Image.open(io.BytesIO(page.screenshot())) as shot:
                shot.convert("RGB").save(ROOT / f"docs/pictures/{name}.webp", quality=80, method=6)
            page.close()
        browser.close()


def main() -> None:
    """Make every picture anew."""
    (ROOT / "docs/pictures").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        slow = {"MUSUBITLX_PRACTICE_STEP_DELAY": "0.02"}
        server = Program(Path(folder) / "home", "--practice", env=slow).start()
        try:
            prepare(server)
            take(server)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
