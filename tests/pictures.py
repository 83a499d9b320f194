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

from captioners_there import look_alike, stand_in_python  # noqa: E402
from support import Program, wait_until  # noqa: E402

SETTINGS = {
    "trigger_word": "ohwx",
    "prompt": "a red ball",
    "output_name": "red_ball",
    "resolution": "512x512",
    "samples_enabled": True,
    "sample_prompt_text": "{{trigger}}, a red ball on a soft background\n{{trigger}}, a red ball",
    "sample_at_first": True,
}
PHONE, DESK = (390, 844), (1366, 900)


def ball(seed: int) -> bytes:
    """A shiny red ball on a coloured ground, in one of several shapes."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFilter

    rng = np.random.default_rng(seed)
    width, height = [(1280, 960), (960, 1280), (1200, 1200), (1600, 900)][seed % 4]
    sky, ground = rng.integers(70, 220, 3), rng.integers(40, 160, 3)
    fade = np.linspace(0, 1, height)[:, None, None] ** 0.7
    image = Image.fromarray((sky * (1 - fade) + ground * fade).repeat(width, 1).astype("uint8"))
    draw = ImageDraw.Draw(image)
    far = height * float(rng.uniform(0.55, 0.7))
    draw.rectangle([0, far, width, height], fill=tuple(int(value * 0.8) for value in ground))
    reach = min(width, height) * float(rng.uniform(0.18, 0.27))
    x, y = width * float(rng.uniform(0.3, 0.7)), far + reach * 0.2
    draw.ellipse([x - reach, y + reach * 0.7, x + reach * 1.3, y + reach * 1.15], fill=(30, 26, 30))
    image = image.filter(ImageFilter.GaussianBlur(1))
    side = int(2 * reach)
    across = (np.mgrid[0:side, 0:side] + 0.5) / reach - 1
    light = np.clip(1.15 - np.hypot(across[0] + 0.4, across[1] + 0.35), 0.12, 1)[..., None]
    shine = np.clip(1 - 4 * np.hypot(across[0] + 0.45, across[1] + 0.4), 0, 1)[..., None]
    red = Image.fromarray((light * [225, 35, 30] + shine * 200).clip(0, 255).astype("uint8"))
    mask = Image.new("L", (side * 4, side * 4))
    ImageDraw.Draw(mask).ellipse([4, 4, side * 4 - 4, side * 4 - 4], fill=255)
    image.paste(red, (int(x - reach), int(y - reach)), mask.resize((side, side)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue()


CAPTIONS = [
    "a red ball on a table, soft light from the left",
    "a red ball before a plain wall",
    "a red ball, seen from the side, long shadow",
    "",
]


def prepare(server: Program) -> None:
    """A folder of captioned images, its settings as the form's draft, and a run under way."""
    server.post("/api/projects", {"name": "red ball"})
    files = {f"ball {seed + 1}.jpg": ball(seed) for seed in range(9)}
    files["ball 10.jpg"] = files["ball 2.jpg"]
    for place, image in enumerate(server.upload("red ball", files).json()["added"]):
        caption = {"text": CAPTIONS[place % len(CAPTIONS)]}
        server.put(f"/api/projects/red ball/images/{image['name']}/caption", caption)
    wait_until(lambda: looked_at(server), what="the images to be looked at")
    draft = {**SETTINGS, "output_dir": "red ball"}
    server.put("/api/config", {"name": "draft-red ball", "settings": draft})
    job = server.post("/api/projects/red ball/train", {"settings": SETTINGS})["id"]
    while (server.get(f"/api/jobs/{job}")["progress"]["step"] or 0) < 180:
        pass


def looked_at(server: Program) -> bool:
    """Whether dataset health knows all images."""
    report = server.get("/api/projects/red ball/health")
    return report["looked"] == report["of"]


# -- the views ------------------------------------------------------------------------------------


def images(page) -> None:
    page.get_by_text("Dataset health").click()
    page.evaluate("document.querySelector('[data-images]').scrollIntoView()")


def settings(page) -> None:
    page.get_by_label("Recipe", exact=True).select_option("Object")
    page.locator("[data-takes] summary").click()
    page.evaluate("document.querySelector('[data-settings]').scrollIntoView()")


def chart(page) -> None:
    page.get_by_role("button", name="Open the large loss chart").click()
    page.get_by_role("dialog").get_by_label("Learning rate").check()


def compare(page) -> None:
    page.locator("[data-samples] a img").last.click()
    page.get_by_role("button", name="Compare").click()


def captions(page) -> None:
    page.get_by_role("button", name="Auto-caption images").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("BLIP large", exact=True).click()


VIEWS = {  # name: size, what is done on the page first
    "page": (DESK, None),
    "phone": (PHONE, None),
    "images": (DESK, images),
    "captions": (DESK, captions),
    "settings": (DESK, settings),
    "chart": (DESK, chart),
    "compare": (DESK, compare),
}


def take(server: Program) -> None:
    """Photograph each view as it stands in mid-run."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("MUSUBITLX_CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        for name, ((width, height), act) in VIEWS.items():
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, color_scheme="dark")
            page.goto(server.url + "/?project=red%20ball")
            page.get_by_text("Training log").wait_for()
            page.wait_for_timeout(800)
            if act:
                act(page)
                page.wait_for_timeout(800)
            with Image.open(io.BytesIO(page.screenshot())) as shot:
                shot.convert("RGB").save(ROOT / f"docs/pictures/{name}.webp", quality=80, method=6)
            page.close()
        browser.close()


def main() -> None:
    """Make every picture anew."""
    (ROOT / "docs/pictures").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        look_alike(home, "blip-large")
        environment = {
            "MUSUBITLX_PRACTICE_STEP_DELAY": "0.08",
            "MUSUBITLX_CAPTION_PYTHON": str(stand_in_python(Path(folder))),
        }
        server = Program(home, "--practice", env=environment).start()
        try:
            prepare(server)
            take(server)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
