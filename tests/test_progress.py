"""How far a run is, read from what Musubi prints."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support import ROOT

from musubitlx.logs import Fold
from musubitlx.progress import Progress

REAL = Path(os.environ.get("MUSUBI_LOGS") or ROOT.parent / "shared" / "musubi" / "logs")
needs_real_logs = pytest.mark.skipif(
    not (REAL / "train.log").is_file(),
    reason="no captured output of Musubi: name its folder in MUSUBI_LOGS",
)


def read(data: bytes, size: int = 4096, progress: Progress | None = None) -> Progress:
    """What is read from a stream that comes in pieces of `size` bytes."""
    fold, progress = Fold(lambda: 0.0), progress or Progress()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    for text, bars in [*map(fold.feed, pieces), fold.end()]:
        progress.read_log(text)
        for bar in bars:
            progress.read_bar(bar)
    return progress


def draw(step: int, total: int = 4, rest: str = "00:02<00:04,  2.00s/it", loss: str = "") -> str:
    more = f", avr_loss={loss}" if loss else ""
    return f"\rsteps: {100 * step // total:3d}%|## | {step}/{total} [{rest}{more}]"


@needs_real_logs
@pytest.mark.parametrize(
    ("name", "total", "epochs"),
    [
        ("train", 8, 2),
        ("train_resume", 12, 3),
        ("train_steps", 6, 2),
        ("train_fp8", 2, 1),
        ("train_lokr", 2, 1),
        ("train_accelerate_launch", 2, 1),
        ("train_buffered_stdout", 2, 1),
        ("train_workers_zero", 2, 1),
    ],
)
@pytest.mark.parametrize("size", [64, 1000, 1_000_000])
def test_a_real_training_is_read_to_its_end(name, total, epochs, size):
    data = (REAL / f"{name}.log").read_bytes()
    progress = read(data, size)
    now, rows = progress.current, progress.take_rows(all_of_them=True)
    assert (now["step"], now["total"], now["epochs"]) == (total, total, epochs)
    if name != "train_buffered_stdout":
        assert now["epoch"] == epochs
    losses = own_losses(data.decode())
    assert now["loss"] == losses[total]
    assert [row["step"] for row in rows] == list(range(1, total + 1))
    assert {row["step"]: row["loss"] for row in rows} == losses
    assert [row["epoch"] for row in rows] == [
        1 + (step - 1) * epochs // total for step in range(1, total + 1)
    ]
    assert rows[0]["seconds_per_step"] is None
    assert all(0.1 < row["seconds_per_step"] < 60 for row in rows[1:])
    assert now["eta_s"] == 0


def own_losses(text: str) -> dict[int, float]:
    """The loss drawn last with each step."""
    found = re.findall(r"\s(\d+)/\d+ \[[^\]]*avr_loss=([\d.]+)", text)
    return {int(step): float(loss) for step, loss in found}


@needs_real_logs
@pytest.mark.parametrize(
    "name", ["latents", "textencoder", "latents_removed_image", "textencoder_fp8_vl"]
)
def test_a_real_caching_run_is_counted(name):
    data = (REAL / f"{name}.log").read_bytes()
    total = int(re.search(rb"found (\d+) images", data)[1])
    progress = read(data)
    assert (progress.current["step"], progress.current["total"]) == (total, total)
    assert progress.take_rows(all_of_them=True) == []


def test_images_named_in_a_jsonl_file_are_counted_too():
    said = b"INFO:musubi_tuner.dataset.datasources:loaded 12 images\n\r3it [00:04,  1.37s/it]"
    assert read(said).current == {"step": 3, "total": 12}


def test_a_count_never_exceeds_its_total():
    assert read(b"found 2 images\n\r3it [00:04,  1.37s/it]").current == {"step": 2, "total": 2}
    assert read(b"\r3it [00:04,  1.37s/it]").current == {}


@pytest.mark.parametrize(
    ("rest", "seconds", "eta"),
    [
        ("00:02<00:04,  2.00s/it", 2.0, 4),
        ("00:02<00:04,  4.00it/s", 0.25, 4),
        ("1:00:02<2:03:04, 12.50s/it", 12.5, 7384),
        ("30:00:02<100:00:00, 99.99s/it", 99.99, 360_000),
        ("00:02<?, ?it/s", None, None),
        ("00:02<00:00,  0.00it/s", None, 0),
    ],
)
def test_rate_and_time_left_are_read_in_every_form(rest, seconds, eta):
    now = read(draw(2, rest=rest, loss="0.5").encode()).current
    assert (now["seconds_per_step"], now["eta_s"]) == (seconds, eta)
    assert (now["step"], now["total"], now["loss"]) == (2, 4, 0.5)


def test_the_nonsense_rate_of_the_first_step_is_not_shown():
    now = read((draw(0) + draw(1, rest="00:00<00:00, 1499.04it/s", loss="2.35")).encode()).current
    assert now == {"step": 1, "total": 4, "loss": 2.35}


@pytest.mark.parametrize("loss", ["nan", "inf", "-inf", "?"])
def test_a_loss_that_is_no_number_is_none(loss):
    progress = read(draw(2, loss=loss).encode())
    assert progress.current["loss"] is None
    assert progress.take_rows(all_of_them=True)[0]["loss"] is None


def test_steps_in_a_row_without_a_number_are_counted_once_each_and_forgotten_after_a_number():
    progress = Progress()
    for step, loss in [(1, "2.0"), (2, "nan"), (2, "nan"), (3, "NaN"), (4, "-inf")]:
        read(draw(step, loss=loss).encode(), progress=progress)
    assert progress.current["nan_steps"] == 3
    read(draw(5, loss="1.9").encode(), progress=progress)
    assert "nan_steps" not in progress.current
    assert "nan_steps" not in read(draw(2, loss="?").encode()).current


def test_each_step_gives_one_row_with_the_loss_drawn_last():
    progress = Progress()
    drawn = [(1, "3.0"), (1, "3.0"), (2, "3.0"), (2, "2.5"), (2, "2.5"), (3, "2.5"), (3, "2.0")]
    rows = []
    for step, loss in drawn:  # looked at after every single draw
        read(draw(step, loss=loss).encode(), progress=progress)
        rows += progress.take_rows()
    rows += progress.take_rows(all_of_them=True)
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 3.0), (2, 2.5), (3, 2.0)]
    read((draw(3, loss="2.0") + "\n").encode(), progress=progress)  # one more, after a traceback
    assert progress.take_rows(all_of_them=True) == []


def test_a_step_belongs_to_its_own_epoch_when_all_comes_in_one_piece():
    said = b"  num epochs / x: 2\n  total optimization steps / x: 4\n\nepoch 1/2\n"
    said += (draw(1) + draw(2, loss="1") + "\nepoch 2/2\n" + draw(3) + draw(4)).encode()
    rows = read(said, 1_000_000).take_rows(all_of_them=True)
    assert [row["epoch"] for row in rows] == [1, 1, 2, 2]


def test_before_the_first_step_total_and_epochs_are_known():
    said = b"  num epochs / x: 3\n  total optimization steps / x: 30\n"
    assert read(said).current == {"step": 0, "total": 30, "epochs": 3}


def test_other_lines_and_bars_change_nothing():
    progress = read(draw(2, loss="0.5").encode())
    before = dict(progress.current)
    said = "epoch is incremented. current_epoch: 0, epoch: 1\nnot epoch 1/2 at all\n"
    said += "\rDenoising steps:  50%|##| 1/2 [00:01<00:01,  1.40s/it]\x1b[A\n"
    said += "\rLoading dit.safetensors:  62%|##| 28/45 [00:01<00:01]\nfound many images\n"
    assert read(said.encode(), progress=progress).current == before
