"""A Python that passes for one with torch: asked for packages it has them, and it captions.

    captioner.py -c CODE NAME=PACKAGE ...      prints that it has them all
    captioner.py -m musubitlx.captioning ...   the real program around a model that is none

The model writes "there is a picture of colour (…)", one image after the other,
`STANDIN_CAPTION_S` seconds each. With STANDIN_CAPTION_ERROR it can't be loaded, for that reason.
"""

from __future__ import annotations

import json
import os
import sys
import time
from types import SimpleNamespace

SECONDS = float(os.environ.get("STANDIN_CAPTION_S", "0"))
VERSIONS = {"python": "3.11.7", "torch": "2.9.1", "transformers": "4.57.6"}


def main(argv: list[str]) -> int:
    """Answer like an interpreter would."""
    if argv[0] == "-c":
        names = [pair.partition("=")[0] for pair in argv[2:]]
        print(json.dumps({name: VERSIONS.get(name, "1.0") for name in ("python", *names)}))
        return 0
    return caption(argv[2:])


def caption(argv: list[str]) -> int:
    """The real program, with the model left out."""
    from musubitlx.captioning import __main__ as program
    from musubitlx.captioning import devices, packages
    from musubitlx.captioning.captioner import LoadedCaptioner
    from musubitlx.errors import UserError

    class Model(LoadedCaptioner):
        """Says what colour the middle of a picture is."""

        model = SimpleNamespace(device=SimpleNamespace(type="cpu"))

        def write(self, images, watch):
            watch.begin()
            for _ in range(10):
                time.sleep(SECONDS * len(images) / 10)
                if watch.token():
                    break
            watch.end()
            return [f"there is a picture of colour {one.getpixel((1, 1))}" for one in images]

    def load(asked, place):
        if reason := os.environ.get("STANDIN_CAPTION_ERROR"):
            raise UserError(reason, hint="Do something about it.")
        return Model()

    packages.check = lambda captioner: None
    packages.go_offline = lambda: None
    devices.choose = lambda *_a, **_k: SimpleNamespace(words="the processor")
    devices.free_bytes = lambda device: None
    devices.is_out_of_memory = lambda error: False
    program.LOAD = dict.fromkeys(program.LOAD, load)
    return program.main([*argv, "--batch", "1"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
