"""Reading how far a run is from what it prints: Musubi's bars and milestones, and our own bars.

Source of the formats: the captured output of Musubi Tuner 0.3.4.
"""

from __future__ import annotations

import re

from musubitlx import bars

STEPS_BAR = re.compile(
    r"steps:\s+\d+%\|.*?\|\s*(?P<step>\d+)/(?P<total>\d+) "
    r"\[[\d:]+<(?P<left>[\d:?]+),\s*(?P<rate>[\d.]+|\?)\s*(?P<unit>it/s|s/it)(?P<more>[^\]]*)\]"
)
LOSS = re.compile(r"avr_loss=([^,\]\s]+)")
NO_NUMBER = re.compile(r"(?i)[+-]?(?:nan|inf(?:inity)?)")
COUNT_BAR = re.compile(r"(?P<done>\d+)it \[")
MILESTONES = re.compile(
    r"^(?:"
    r"epoch (?P<epoch>\d+)/(?P<epochs>\d+)\s*$"
    r"|.*\b(?:found|loaded) (?P<images>\d+) images"  # of a folder, of a JSONL file
    r"|\s*num epochs / [^:\n]*: (?P<num_epochs>\d+)"
    r"|\s*total optimization steps / [^:\n]*: (?P<steps>\d+)"
    r")",
    re.M,
)


class Progress:
    """How far one stage is. `current` is what the job's `progress` shows.

    Fed with the log's text and the states of bars; `take_rows` gives one row for
    each optimizer step that is over.
    """

    def __init__(self) -> None:
        self.current: dict = {}
        self._rows: list[dict] = []
        self._images = 0
        self._nan_from: int | None = None  # the step since which the loss is no number

    def read_log(self, text: str) -> None:
        """Take text that went to the log: whole lines."""
        if not any(word in text for word in ("epoch", " images", "total optim")):
            return
        for match in MILESTONES.finditer(text):
            self._milestone({key: int(v) for key, v in match.groupdict().items() if v})

    def _milestone(self, seen: dict[str, int]) -> None:
        if "images" in seen:
            self._images += seen["images"]
        if "steps" in seen:
            self.current |= {"step": 0, "total": seen["steps"]}
        if "num_epochs" in seen:
            self.current["epochs"] = seen["num_epochs"]
        if "epoch" in seen:
            self.current |= {"epoch": seen["epoch"], "epochs": seen["epochs"]}

    def read_bar(self, bar: str) -> None:
        """Take one state of a bar; one that is not about steps or items changes nothing."""
        if match := STEPS_BAR.match(bar):
            self._steps(match)
        elif own := bars.read(bar):
            self.current = own
        elif (match := COUNT_BAR.match(bar)) and self._images:
            done = min(int(match["done"]), self._images)
            self.current |= {"step": done, "total": self._images}

    def _steps(self, match: re.Match) -> None:
        step, total = int(match["step"]), int(match["total"])
        before = self.current.get("step") or 0
        self.current |= {"step": step, "total": total}
        if step > 1:  # the first step is not timed, its rate is nonsense
            self.current |= {
                "seconds_per_step": _seconds(match),
                "eta_s": bars.seconds(match["left"]),
            }
        if loss := LOSS.search(match["more"]):
            self.current["loss"] = _number(loss[1])
            self._watch(loss[1], step)
        if step > before:
            self._rows.append(self._row(step))
        elif self._rows and self._rows[-1]["step"] == step:
            self._rows[-1] = self._row(step)  # the bar is drawn again with the step's loss

    def _watch(self, loss: str, step: int) -> None:
        """Count the steps in a row whose loss is NaN or infinite, and say where that began."""
        if not NO_NUMBER.fullmatch(loss):
            self._nan_from = None
            self.current.pop("nan_steps", None)
            return
        self._nan_from = self._nan_from or step
        self.current["nan_steps"] = step - self._nan_from + 1

    def _row(self, step: int) -> dict:
        names = ("loss", "seconds_per_step")
        row = {name: self.current.get(name) for name in names}
        return {"step": step, "epoch": self._epoch_of(step), **row}

    def _epoch_of(self, step: int) -> int | None:
        """The epoch of a step; the one announced last is the next one's when both come at once."""
        total, epochs = self.current.get("total"), self.current.get("epochs")
        if total and epochs and total % epochs == 0:
            return (step - 1) * epochs // total + 1
        return self.current.get("epoch")

    def take_rows(self, *, all_of_them: bool = False) -> list[dict]:
        """The rows of steps that are over; the last one may still be redrawn and stays."""
        keep = 0 if all_of_them else 1
        cut = max(len(self._rows) - keep, 0)
        rows, self._rows = self._rows[:cut], self._rows[cut:]
        return rows


def _seconds(match: re.Match) -> float | None:
    rate = _number(match["rate"])
    if not rate:
        return None
    return round(rate if match["unit"] == "s/it" else 1 / rate, 4)


def _number(text: str) -> float | None:
    """The number, or None for `?`, `nan` and `inf`, which JSON has no word for."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number - number == 0 else None
