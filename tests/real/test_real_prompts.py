"""Prompt lines against the real Musubi's own reader."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

from musubi_here import GIVEN, needs_musubi

from musubitlx import prompts
from musubitlx.practice import prompts as practice

pytestmark = needs_musubi

# The file alone: the package would load torch.
ASK = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("sampling_prompts", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
if sys.argv[2:]:
    json.dump(module.load_prompts(sys.argv[2]), sys.stdout)
else:
    json.dump([module.line_to_prompt_dict(line) for line in json.load(sys.stdin)], sys.stdout)
"""
READER = "src/musubi_tuner/training/sampling_prompts.py"

SCRAPS = (
    "a red ball| --w 512| --h 71| --W 5x| --s 0| --s 5000| --d 42| --d -1| --l 4,5| --l 1.2.3"
    "| --l .| --fs 2.2| --g 7| --f 2| --n bad, ugly| --n  | --i a.png | --ei b| --cn c| --ci d"
    "| --ci e | --of x=1| --steps 3| --|--|n |w 5|g 2|i x|fs 3|d ٣|ſ 5|İ x| |é 画 😀|#"
    "|{{trigger}}|="
)


def real(lines: list[str] | None = None, *, file: Path | None = None) -> list[dict]:
    answer = subprocess.run(
        [GIVEN["MUSUBI_PYTHON"], "-c", ASK, str(Path(GIVEN["MUSUBI_DIR"]) / READER)]
        + ([str(file)] if file else []),
        input=json.dumps(lines),
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    return json.loads(answer.stdout)


def typed(count: int) -> list[str]:
    rng, scraps = random.Random(1), SCRAPS.split("|")
    return ["".join(rng.choices(scraps, k=rng.randint(1, 9))) for _ in range(count)]


def test_the_practice_trainer_reads_every_line_as_the_real_musubi():
    lines = typed(600)
    for line, row in zip(lines, real(lines), strict=True):
        assert practice.parse_line(line) == row, line


def test_the_real_musubi_reads_what_was_meant(tmp_path):
    meant, lines = [], []
    for scrap in ("", "n ", "w 5 ", "g 2 ", "i ", "d ٣ ", "s 1 x ", "f 9 ", "fs 9", "l 1.2.3"):
        for line in typed(600):
            found = prompts.read(f"{scrap}{line}", trigger="sks", seed=7)
            meant += found.prompts
            lines += found.lines
    assert len(lines) > 300
    file = tmp_path / "sample_prompts.txt"
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    for prompt, row in zip(meant, real(file=file), strict=True):
        assert row["prompt"] == prompt.text
        assert (row["width"], row["height"]) == (prompt.width, prompt.height)
        assert (row["sample_steps"], row["seed"]) == (prompt.steps, prompt.seed)
        assert (row["cfg_scale"], row["frame_count"]) == (prompt.guidance, prompt.frames)
        assert row["discrete_flow_shift"] == prompt.flow_shift
        assert row.get("negative_prompt", " ") == prompt.negative
        assert row.get("guidance_scale", 1.0) == 1.0
