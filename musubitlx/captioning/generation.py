"""Following a model while it writes: how far it is, and stopping it after a token."""

from __future__ import annotations

from collections.abc import Callable

from musubitlx.captioning.stopping import Stop

ALMOST = 0.95  # of a batch: the most that is shown before its texts are there


class Watch:
    """Looks on while batches are written, token by token.

    `show` gets the share (0 to 1) of the batch that is done, by how many tokens captions
    have had so far; `usual` is a guess for the first. `say` prints a line.
    """

    def __init__(
        self,
        stop: Stop,
        show: Callable[[float], None],
        say: Callable[[str], None] = print,
        usual: float = 30,
    ):
        self.stop, self.say = stop, say
        self._show, self._usual = show, usual
        self._steps, self._batches = 0, 0

    def begin(self) -> None:
        """A batch begins; Stopped if that was asked for."""
        self.stop.check()
        self._steps = 0

    def token(self) -> bool:
        """Each row has one token more; True if that is to be the last."""
        self._steps += 1
        self._show(min(ALMOST, self._steps / self._usual))
        return bool(self.stop.number)

    def end(self) -> None:
        """A batch was written; Stopped if it may have been cut off for that."""
        self.stop.check()
        self._batches += 1
        weight = 1 / min(self._batches, 5)  # the last few count, the guess does not
        self._usual += (max(1, self._steps) - self._usual) * weight


def criteria(watch: Watch):
    """The stopping criteria for generate() that tell `watch` of each token."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class EachToken(StoppingCriteria):
        def __call__(self, input_ids, scores, **_):
            stop = watch.token()
            return torch.full((input_ids.shape[0],), stop, device=input_ids.device)

    return StoppingCriteriaList([EachToken()])
