"""UserError: a problem the person at the browser can put right, said in a sentence."""

from __future__ import annotations

import errno
import re


class UserError(Exception):
    """A problem the person at the browser can put right.

    The text is shown to them word for word: it says what happened and what to
    do next, and holds no traceback and no secret.
    """

    http_status = 400

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None):
        super().__init__(message)
        self.field = field  # the form control at fault, when there is one
        self.hint = hint  # what to do about it, when the message alone does not say

    def as_dict(self) -> dict:
        """The one shape of an error, as every answer and list carries it."""
        return {"error": str(self), "field": self.field, "hint": self.hint}


class Unauthorized(UserError):
    """No token, or a wrong one."""

    http_status = 401


class Forbidden(UserError):
    """The request comes from where nothing may be changed or read."""

    http_status = 403


class NotFound(UserError):
    """The thing named is not there."""

    http_status = 404


class Conflict(UserError):
    """It can't be done while something else is as it is."""

    http_status = 409


class TooLarge(UserError):
    """More bytes than there is room or a limit for."""

    http_status = 413


class Invalid(UserError):
    """A value is of the wrong type, out of range or unknown."""

    http_status = 422


class Advice(UserError):
    """Nothing is wrong, but it could be better: `points` are what to do about it."""

    def __init__(self, message: str, points: list[str], *, field: str | None = None):
        super().__init__(message, field=field)
        self.points = points

    def as_dict(self) -> dict:
        """The common shape, and the points."""
        return {**super().as_dict(), "points": self.points}


class Offer(UserError):
    """A warning with a way out: `settings`, by name, put it right; `label` is on the button."""

    def __init__(
        self, message: str, *, label: str, settings: dict, field: str | None = None, hint=None
    ):
        super().__init__(message, field=field, hint=hint)
        self.label, self.settings = label, settings

    def as_dict(self) -> dict:
        """The common shape, and the way out under `fix`."""
        return {**super().as_dict(), "fix": {"label": self.label, "settings": self.settings}}


class DiskFull(UserError):
    """The disk has no room for what was asked."""

    http_status = 507


class ManyInvalid(Invalid):
    """Several values are wrong at once; `errors` holds one Invalid for each."""

    def __init__(self, errors: list[UserError]):
        first = errors[0]
        super().__init__(str(first), field=first.field, hint=first.hint)
        self.errors = errors

    def as_dict(self) -> dict:
        """The first error in the common shape, and all of them under `errors`."""
        return {**super().as_dict(), "errors": [error.as_dict() for error in self.errors]}


ERROR, HINT = "ERROR: ", "What to do: "


def printed(error: UserError) -> str:
    """An error as a program of ours prints it before it ends; `read_printed` reads it again."""
    sentence = ERROR + " ".join(str(error).split())
    return f"{sentence}\n{HINT}{' '.join(error.hint.split())}" if error.hint else sentence


def read_printed(text: str) -> UserError | None:
    """The last error that was printed into a log; None if there is none."""
    found = re.findall(rf"^{ERROR}(.+)(?:\n{HINT}(.+))?", text, re.M)
    return UserError(found[-1][0], hint=found[-1][1] or None) if found else None


def disk_error(error: OSError, path: object = None) -> UserError:
    """What a failed write means for the person: a full disk or one that can't be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull("The disk is full.", hint="Free some space and try again.")
    return UserError(f"{path or 'The file'} can't be written: {error.strerror}.")
