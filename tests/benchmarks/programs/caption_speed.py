"""Time a caption model of middling size on the processor: FOLDER MODEL; prints a line of JSON.

`per_s` is images a second by images at once, `same` whether all said the same.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "captioning")]

import tiny  # noqa: E402

from musubitlx.captioners import INSTRUCTION  # noqa: E402
from musubitlx.captioning import blip, devices, qwen_vl, vit_gpt2  # noqa: E402
from musubitlx.captioning.generation import Watch  # noqa: E402
from musubitlx.captioning.stopping import Stop  # noqa: E402

SIZE = tiny.Size(width=192, layers=6, heads=4, inner=768, pixels=224, words=4000)
IMAGES, TOKENS = 8, 24
AT_ONCE = (1, 2, 4, 8)
KINDS = {"vit-gpt2": vit_gpt2, "blip-large": blip, "qwen-vl": qwen_vl}


def main(folder: Path, name: str) -> None:
    """Make the model, caption the same pictures in batches of each size, print the speeds."""
    model = load(folder, name)
    images, speeds, said = pictures(), {}, set()
    model.write(images[:1], Watch(Stop(), lambda share: None))  # the first call prepares things
    for size in AT_ONCE:
        begun, texts = time.monotonic(), []
        for at in range(0, IMAGES, size):
            texts += model.write(images[at : at + size], Watch(Stop(), lambda share: None))
        speeds[str(size)] = IMAGES / (time.monotonic() - begun)
        said.add(tuple(texts))
    print(json.dumps({"per_s": speeds, "same": len(said) == 1}))


def load(folder: Path, name: str):
    """The model as the program loads it, with random weights."""
    weights, file = folder / name, folder / tiny.TEXT_ENCODER
    if name == "qwen-vl":
        tiny.qwen(weights, file, SIZE)
    else:
        {"vit-gpt2": tiny.vit_gpt2, "blip-large": tiny.blip}[name](weights, SIZE)
    wish = SimpleNamespace(max_tokens=TOKENS, detail=1, instruction=INSTRUCTION)
    asked = SimpleNamespace(weights=weights, text_encoder=file, wish=wish)
    return KINDS[name].load(asked, devices.choose("cpu", "fp32", large=name == "qwen-vl"))


def pictures() -> list:
    """Pictures, each another one."""
    from PIL import Image

    ground = Image.linear_gradient("L").resize((224, 224)).convert("RGB")
    return [Image.blend(ground.rotate(40 * n), ground, n / 16) for n in range(IMAGES)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
