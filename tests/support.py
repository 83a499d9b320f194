"""What tests share: the real program, its event stream, pictures, stand-in trainers."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from musubitlx.home import read_json

ROOT = Path(__file__).resolve().parent.parent
STANDINS = Path(__file__).resolve().parent / "standins"

SMALL = {  # a practice run of a few seconds
    "trigger_word": "ohwx",
    "prompt": "a red ball",
    "epochs": 2,
    "image_repeats": 2,
    "resolution": "256x256",
    "output_name": "ball",
}


def wait_until(condition: Callable, *, seconds: float = 20.0, what: str = "", every: float = 0.05):
    """Return the first true answer of `condition`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what or condition}"
        time.sleep(every)


@dataclass
class Event:
    """One server-sent event."""

    name: str
    data: dict
    id: str | None
    at: float  # monotonic seconds when its last byte arrived


def parse_events(chunks) -> Iterator[Event]:
    """Turn the chunks of an open stream into events, as they come."""
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        while b"\n\n" in buffer:
            block, buffer = buffer.split(b"\n\n", 1)
            fields = dict(
                line.split(": ", 1) for line in block.decode().split("\n") if ": " in line[1:]
            )
            if "event" in fields:
                data = json.loads(fields["data"])
                yield Event(fields["event"], data, fields.get("id"), time.monotonic())


class Program:
    """webgui.py as a person starts it, with a home folder of its own."""

    def __init__(self, home: Path, *arguments: str, env: dict | None = None):
        self.home = home
        self.arguments = arguments
        self.env = {**clean_environment(), **(env or {})}
        self.process: subprocess.Popen | None = None
        self.session = requests.Session()
        self.said = home.parent / f"{home.name}-server.log"

    def start(self) -> Program:
        """Start it and wait until it listens."""
        command = [sys.executable, str(ROOT / "webgui.py"), "--home", str(self.home)]
        command += ["--port", "0", "--host", "127.0.0.1", *self.arguments]
        with self.said.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=self.env,
                cwd=self.home.parent,
            )
        self.record = wait_until(self._record, what=f"server.json, see {self.said}", seconds=60)
        self.url = f"http://127.0.0.1:{self.record['port']}"
        return self

    def _record(self) -> dict | None:
        ended = self.process.poll()
        assert ended is None, f"the server ended with {ended}: {self.said.read_text()}"
        try:
            record = json.loads((self.home / "output/.jobs/server.json").read_text())
        except (OSError, ValueError):
            return None
        return record if record["pid"] == self.process.pid else None

    def kill(self) -> None:
        """End it the way a crash does."""
        inspectors = self._inspectors()
        self.process.kill()
        self.process.wait(timeout=10)
        end_all(inspectors)

    def stop(self) -> None:
        """End it politely, and every runner and trainer it started."""
        if self.process and self.process.poll() is None:
            inspectors = self._inspectors()
            self.process.terminate()
            self.process.wait(timeout=10)
            end_all(inspectors)
        for runner in self.home.glob("output/.jobs/*/status.json"):
            end_runner(read_json(runner) or {})

    def _inspectors(self) -> list[psutil.Process]:
        """The programs that look at images for it; they would write on in its home folder."""
        with suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children()
            return [one for one in children if "musubitlx.inspector" in one.cmdline()]
        return []

    # -- HTTP ----------------------------------------------------------------------------------

    def call(self, method: str, path: str, **more) -> requests.Response:
        """One request; the caller looks at the status."""
        more.setdefault("timeout", 30)
        return self.session.request(method, self.url + path, **more)

    def get(self, path: str, **more):
        """The JSON of a GET that must succeed."""
        return good(self.call("GET", path, **more))

    def post(self, path: str, body=None, **more):
        """The JSON of a POST that must succeed."""
        return good(self.call("POST", path, json=body if body is not None else {}, **more))

    def put(self, path: str, body):
        """The JSON of a PUT that must succeed."""
        return good(self.call("PUT", path, json=body))

    def upload(self, project: str, files: dict[str, bytes]) -> requests.Response:
        """Send files as a browser does."""
        parts = [("files", (name, data)) for name, data in files.items()]
        return self.call("POST", f"/api/projects/{project}/images", files=parts)

    @contextmanager
    def events(self, last_id: str | None = None, job: str | None = None, timeout: float = 60):
        """An open event stream, as an iterator of events."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        query = {"job": job} if job else {}
        url = self.url + "/api/events"
        with requests.get(
            url, params=query, headers=headers, stream=True, timeout=timeout
        ) as answer:
            assert answer.status_code == 200, answer.text
            yield parse_events(answer.iter_content(chunk_size=None))

    def events_until_end(self, job: str, last_id: str | None = None) -> list[Event]:
        """Every event of a job's stream up to the one that says it has ended."""
        found = []
        with self.events(last_id, job=job) as stream:
            for event in stream:
                found.append(event)
                if event.name == "job" and event.data["id"] == job and event.data["ended"]:
                    return found
        raise AssertionError("the stream ended before the job")

    def wait_for(self, job: str, *states: str, seconds: float = 60) -> dict:
        """The job, once it is in one of these states (or has ended)."""
        states = states or ("succeeded", "failed", "stopped", "interrupted")
        return wait_until(
            lambda: (found := self.get(f"/api/jobs/{job}"))["state"] in states and found,
            seconds=seconds,
            what=f"{job} to be {states}",
        )

    def log(self, job: str) -> str:
        """The whole log of a job."""
        answer = self.call("GET", f"/api/jobs/{job}/log?offset=0")
        answer.encoding = "utf-8"
        return answer.text


def end_all(processes: list[psutil.Process]) -> None:
    """End processes at once and wait until they are gone."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def good(answer: requests.Response):
    """The JSON of an answer that must not be an error."""
    assert answer.status_code < 300, f"{answer.status_code}: {answer.text[:500]}"
    return answer.json()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for what the server itself writes and can make again."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and ".musubitlx" not in path.parts
        and not path.name.startswith(("runner", "server", "inspector"))
    }


def clean_environment() -> dict:
    """The environment without what would lead a server elsewhere."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MUSUBI", "MUSUBITLX_")) or key == "MUSUBITLX_CHROMIUM"
    }


def end_runner(status: dict) -> None:
    """End a runner and its trainer, if they are still there."""
    from musubitlx import births

    for who in (status.get("child"), status.get("runner")):
        if isinstance(who, dict) and births.alive(who.get("pid"), who.get("birth")):
            try:
                os.kill(who["pid"], signal.SIGKILL)
            except OSError:
                continue


def log_text(events: list[Event]) -> str:
    """What the log events of a stream add up to."""
    return "".join(event.data["text"] for event in events if event.name == "log")


# -- pictures --------------------------------------------------------------------------------------


def picture(seed: int = 0, size: tuple[int, int] = (320, 256), kind: str = "JPEG", **more) -> bytes:
    """A picture that looks a little like a photo: a lit ball on a soft background, with grain."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[0:height, 0:width] / max(size)
    ground = np.stack([0.25 + 0.3 * y, 0.35 + 0.2 * x, 0.5 + 0.2 * (1 - y)], -1)
    ground = ground + 0.08 * rng.standard_normal(3)
    cx, cy = (0.35 + 0.3 * rng.random()) * width / max(size), 0.5 * height / max(size)
    radius = 0.16 + 0.06 * rng.random()
    distance = np.hypot(x - cx, y - cy)
    light = np.clip(1.1 - np.hypot(x - cx + 0.06, y - cy + 0.06) / radius * 0.7, 0.2, 1)
    ball = np.stack([0.9 * light, 0.2 * light, 0.15 * light], -1)
    shade = 1 / (1 + np.exp(np.clip((distance - radius) * 90, -50, 50)))[..., None]
    pixels = ground * (1 - shade) + ball * shade + 0.02 * rng.standard_normal((height, width, 3))
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype("uint8"))
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def plain(colour: tuple[int, int, int], size=(640, 480)) -> bytes:
    """A picture of one colour."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def pictures(count: int = 8) -> dict[str, bytes]:
    """Pictures of one subject in several shapes, by file name."""
    shapes = [(512, 512), (640, 480), (480, 640), (512, 512), (768, 512)]
    return {f"ball {n}.jpg": picture(n, shapes[n % len(shapes)]) for n in range(count)}


# -- a stand-in for Musubi -------------------------------------------------------------------------


def stand_in(folder: Path, **scripts: str) -> dict[str, str]:
    """Make a folder that passes for Musubi Tuner; returns the environment that points to it.

    `latents`, `text_encoder`, `train` name what the three scripts do: a file of
    tests/standins/ without .py; left out they do what they should, quickly.
    """
    from musubitlx.musubi import PACKAGES
    from musubitlx.options import LATENTS, TEXT_ENCODER, TRAIN

    package = folder / "src" / "musubi_tuner"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "stand-in"\nversion = "0.3.4"\n')
    for name in PACKAGES:  # empty ones pass for those of Musubi's environment
        (package.parent / name).mkdir()
        (package.parent / name / "__init__.py").touch()
    names = {"latents": LATENTS, "text_encoder": TEXT_ENCODER, "train": TRAIN}
    for stage, script in names.items():
        text = (STANDINS / f"{scripts.get(stage, 'good')}.py").read_text()
        (package / script).write_text(text)
    return {"MUSUBI_DIR": str(folder)}


def model_files(home: Path) -> None:
    """Model files that look right from their headers, a few hundred bytes each."""
    import numpy as np
    from safetensors.numpy import save_file

    home.mkdir(parents=True, exist_ok=True)
    keys = {
        "qwen_image_bf16.safetensors": [
            "transformer_blocks.0.attn.to_q.weight",
            "transformer_blocks.0.img_mod.1.weight",
            "img_in.weight",
            "txt_in.weight",
            "txt_norm.weight",
            "time_text_embed.timestep_embedder.linear_1.weight",
            "proj_out.weight",
            "norm_out.linear.weight",
        ],
        "qwen_2.5_vl_7b.safetensors": [
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.norm.weight",
            "visual.patch_embed.proj.weight",
            "visual.blocks.0.attn.qkv.weight",
            "lm_head.weight",
        ],
        "diffusion_pytorch_model.safetensors": [
            "encoder.conv_in.weight",
            "encoder.down_blocks.0.conv1.weight",
            "decoder.conv_in.weight",
        ],
    }
    for name, tensors in keys.items():
        data = {key: np.zeros((4, 4), np.float32) for key in tensors}
        if "model.norm.weight" in data:
            data["model.norm.weight"] = np.zeros(3584, np.float32)
        if name.startswith("diffusion"):
            data["encoder.conv_in.weight"] = np.zeros((96, 3, 3, 3, 3), np.float32)
        save_file(data, home / name)


def bare_plan(home, command: list[str], **more):
    """A job of one stage that runs any program."""
    from musubitlx.jobs import Plan, Stage

    name = f"log_{random.randrange(10**9)}"
    outputs = more.pop("outputs", [])
    folder = home.output / "bare"
    folder.mkdir(parents=True, exist_ok=True)
    stage = Stage("train", "Training the LoRA", command, str(folder), outputs=outputs)
    return Plan(
        **{
            "kind": "train",
            "queue": "gpu0",
            "title": "bare",
            "project": "bare",
            "stages": [stage],
            "log": str(folder / f"training_log_{name}.log"),
            **more,
        }
    )
