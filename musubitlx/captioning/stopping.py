"""Being asked to stop: at once while nothing can be lost, after the current token else."""

from __future__ import annotations

import signal


class Stopped(BaseException):
    """The run ends because somebody asked for it; `number` is that of the signal.

    No Exception: it may be raised anywhere, and nobody's handling of errors is meant to catch it.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by signal {number}")
        self.number = number


class Stop:
    """Whether a stop was asked for.

    Until `careful` is set a signal breaks off whatever is being done; from then on it is only
    noted, and whoever may stop calls `check`.
    """

    def __init__(self):
        self.number = 0
        self.careful = False

    def listen(self) -> None:
        """Note SIGTERM and SIGINT (and Windows' SIGBREAK) from now on."""
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            if number := getattr(signal, name, None):
                signal.signal(number, self._noted)

    def _noted(self, number: int, _frame) -> None:
        self.number = int(number)
        if not self.careful:
            raise Stopped(self.number)

    def check(self) -> None:
        """Raise Stopped if a stop was asked for."""
        if self.number:
            raise Stopped(self.number)
