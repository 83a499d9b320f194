"""A lease: at most one process at a time holds it, and the kernel takes it back from the dead."""

from __future__ import annotations

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # network and FUSE file systems


class Lease:
    """An exclusive lock on a file, held while this process has it open."""

    def __init__(self, path: Path):
        self._path = path
        self._handle: int | None = None

    def take(self) -> bool:
        """Try to get it; False when another process has it.

        Where the file system knows no locks everybody gets it: better than nobody.
        """
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(handle)
                return False
        self._handle = handle
        return True

    def give_back(self) -> None:
        """Let others have it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
