"""RAM, VRAM and disk: how much there is, how much is used.

Bytes everywhere, percent of the total with one digit, temperature in degrees Celsius,
power in watts.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from musubitlx.processes import MARK

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")

# -- RAM ------------------------------------------------------------------------------------------


def ram(cgroup_root: Path = CGROUP_ROOT, own_cgroups: Path = OWN_CGROUPS) -> dict:
    """Return {used, total, percent, limit}, `limit` being "container" or "machine".

    Used is what a program that needs memory can't have: total minus available. A
    container's (control group's) limit takes the place of the machine's when it is the
    lower one.
    """
    return min(memories(cgroup_root, own_cgroups), key=lambda memory: memory["total"])


def fullest_ram(cgroup_root: Path = CGROUP_ROOT, own_cgroups: Path = OWN_CGROUPS) -> dict:
    """Like `ram`, of the machine and all groups round us the one nearest to its limit.

    That is where the kernel kills first: a small container in a full machine is in danger, too.
    """
    return max(memories(cgroup_root, own_cgroups), key=lambda memory: memory["percent"])


def memories(cgroup_root: Path, own_cgroups: Path) -> list[dict]:
    """The machine's memory, then that of each control group with a lower limit."""
    import psutil  # 30 ms

    machine = psutil.virtual_memory()
    found = [(machine.total - machine.available, machine.total, "machine")]
    for group in memory_groups(cgroup_root, own_cgroups):
        if (memory := read(group)) and memory[1] < machine.total:
            found.append((*memory, "container"))
    return [
        {"used": used, "total": total, "percent": percent(used, total), "limit": limit}
        for used, total, limit in found
    ]


def percent(used: int, total: int) -> float:
    """Return used of total in percent, 0 where the total is unknown."""
    return round(100 * used / total, 1) if total else 0.0


def memory_groups(cgroup_root: Path, own_cgroups: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that limit this process, innermost first.

    A line of /proc/self/cgroup is `id:controllers:path`: version 2 has id 0 and no
    controllers, version 1 the controller `memory` in a folder of that name. Inside a
    container the path may be the host's, which is not there: then its root counts.
    """
    try:
        lines = own_cgroups.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if "memory" in controllers.split(","):
            root = cgroup_root / "memory"
        elif number == "0" and not controllers:
            root = cgroup_root
        else:
            continue
        inner = root / path.strip("/")
        yield from (group for group in (inner, *inner.parents) if group.is_relative_to(root))


def read(group: Path) -> tuple[int, int] | None:
    """Return (used, limit) of one control group in bytes, None if it has no limit.

    Used is without the file cache and what else the kernel can give back, as in the
    machine's "available": a group full of the cache of a model file read once is not
    out of memory.
    """
    v2 = (group / "memory.max").exists()
    names = ("memory.max", "memory.current") if v2 else V1_NAMES
    try:
        limit, current = ((group / name).read_text().strip() for name in names)
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = sum(int(stat.get(key, 0)) for key in (V2_CACHE if v2 else V1_CACHE))
        return (max(0, int(current) - cached), int(limit)) if limit != "max" else None
    except (OSError, ValueError):
        return None


V1_NAMES = ("memory.limit_in_bytes", "memory.usage_in_bytes")  # no limit: a number near 2**63
V1_CACHE = ("total_inactive_file", "total_active_file")
V2_CACHE = ("inactive_file", "active_file", "slab_reclaimable")


# -- VRAM -----------------------------------------------------------------------------------------

RETRY_S = 30.0


class Nvidia:
    """The driver's figures by NVML; asked once whether it is there, then every 30 s at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._nvml = None  # the module, while it is initialised
        self._reason: str | None = None  # why it is not
        self._retry_at = 0.0

    def gpus(self) -> tuple[list[dict], str | None]:
        """Return the cards, and in a sentence why figures are missing (None if none are).

        A card: {index, name, used, total, percent, temperature, power, processes};
        temperature and power None where the card does not tell, processes those that hold
        its memory as {pid, name, used}, the largest first. Index is the driver's, which
        CUDA_VISIBLE_DEVICES does not change. Raises nothing.
        """
        with self._lock:
            if not self._open():
                return [], self._reason
            nvml = self._nvml
            try:
                indices = range(nvml.nvmlDeviceGetCount())
                cards = [card for index in indices if (card := read_card(nvml, index))]
            except nvml.NVMLError as error:
                self._close(why(error))
                return [], self._reason
        lost = len(indices) - len(cards)
        return cards, f"{lost} of {len(indices)} GPUs do not answer." if lost else None

    def _open(self) -> bool:
        """Initialise NVML unless it is; False, and the reason set, if it can't be."""
        if self._nvml or self._clock() < self._retry_at:
            return self._nvml is not None
        self._retry_at = self._clock() + RETRY_S
        try:
            import pynvml
        except ImportError:
            self._reason = "The package nvidia-ml-py is not installed: no VRAM figures."
            return False
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self._reason = why(error)
            return False
        self._nvml, self._reason = pynvml, None
        return True

    def _close(self, reason: str) -> None:
        """Let go of a driver that has gone wrong, to start anew after RETRY_S."""
        nvml, self._nvml, self._reason = self._nvml, None, reason
        self._retry_at = self._clock() + RETRY_S
        with suppress(nvml.NVMLError):  # it had gone by itself
            nvml.nvmlShutdown()


def read_card(nvml, index: int) -> dict | None:
    """Return the figures of one card, None when it does not answer."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = read_memory(nvml, handle)
    except nvml.NVMLError as error:
        if type(error).__name__ in ("NVMLError_Uninitialized", "NVMLError_DriverNotLoaded"):
            raise
        return None
    used, total = int(memory.used), int(memory.total)
    milliwatts = ask(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    return {
        "index": index,
        "name": text(ask(nvml, lambda: nvml.nvmlDeviceGetName(handle)) or f"GPU {index}"),
        "used": used,
        "total": total,
        "percent": percent(used, total),
        "temperature": ask(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, 0)),
        "power": None if milliwatts is None else round(milliwatts / 1000),
        "processes": holders(nvml, handle),
    }


def holders(nvml, handle) -> list[dict]:
    """Who holds a card's memory; empty where the driver does not tell (in containers, on WSL).

    {pid, name, used (bytes, None on Windows), job (the id of the run it belongs to, or None)}.
    """
    import psutil

    found = []
    for one in ask(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or []:
        name = job = None
        with suppress(psutil.Error, OSError):  # somebody else's process keeps its environment
            process = psutil.Process(one.pid)
            name = process.name()
            job = process.environ().get(MARK)
        used = one.usedGpuMemory
        row = {"pid": one.pid, "name": name or "a program", "used": used and int(used), "job": job}
        found.append(row)
    return sorted(found, key=lambda row: row["used"] or 0, reverse=True)


def read_memory(nvml, handle):
    """Return the memory figures as nvidia-smi shows them, on old drivers with their reserve."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError, AttributeError, TypeError):  # an old driver, an old package
        return nvml.nvmlDeviceGetMemoryInfo(handle)


def ask(nvml, question: Callable):
    """Return the answer, None where the card or the driver has none."""
    try:
        return question()
    except (nvml.NVMLError, AttributeError):
        return None


def text(name: str | bytes) -> str:
    """A name as text; old packages give bytes."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


def why(error: Exception) -> str:
    """Say in a sentence why there are no VRAM figures."""
    kind = type(error).__name__.removeprefix("NVMLError_")
    return REASONS.get(kind, f"The NVIDIA driver gives no VRAM figures: {error}.")


REASONS = {
    "LibraryNotFound": "No NVIDIA driver was found: no VRAM figures.",
    "DriverNotLoaded": "The NVIDIA driver is installed but not running: no VRAM figures.",
    "LibRmVersionMismatch": "The NVIDIA driver was updated and the machine not restarted since: "
    "no VRAM figures, and training won't start. Restart the machine.",
    "NoPermission": "This user may not ask the NVIDIA driver: no VRAM figures.",
    "GpuIsLost": "The GPU has fallen off the bus: restart the machine.",
}

_nvidia = Nvidia()


def gpus() -> tuple[list[dict], str | None]:
    """Return the graphics cards, and why figures are missing; see Nvidia.gpus.

    A driver that hangs holds this call as long: handlers ask a Poller instead.
    """
    return _nvidia.gpus()


def driver_version() -> str | None:
    """The version of the NVIDIA driver, None without one; asks the driver, which may take long."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return text(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def chosen_card(cards: list[dict]) -> dict | None:
    """The card a run uses: the first that CUDA_VISIBLE_DEVICES names, else the first of all."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    index = int(first) if first.isdecimal() else 0
    return next((card for card in cards if card["index"] == index), None)


# -- disk -----------------------------------------------------------------------------------------


def disk(path: Path) -> dict:
    """Return {free, total} of the disk that holds `path`, or will when it has been made.

    Free is what an ordinary user may fill. None for both when the disk does not answer.
    """
    for place in (path, *path.parents):
        try:
            usage = shutil.disk_usage(place)
        except OSError:
            continue
        return {"free": usage.free, "total": usage.total}
    return {"free": None, "total": None}


# -- all together, in the background --------------------------------------------------------------

NO_ANSWER = "The NVIDIA driver does not answer: no VRAM figures."
PATIENCE_S = 1.0
STUCK_S = 10.0  # a sample that takes longer is not coming


class Poller:
    """Samples VRAM and disk in a thread of its own while somebody asks, and rests otherwise.

    A driver or a network disk that hangs holds that thread, never a caller: the first
    ask waits PATIENCE_S at most for the first sample, later ones take the last.
    """

    def __init__(
        self,
        path: Path,
        interval_s: float = 3.0,
        idle_after_s: float = 15.0,
        read_gpus: Callable[[], tuple[list[dict], str | None]] = gpus,
    ):
        self._path = path
        self._interval_s = interval_s
        self._idle_after_s = idle_after_s
        self._read_gpus = read_gpus
        self._lock = threading.Lock()
        self._running = False
        self._asked = 0.0
        self._sampled = float("-inf")
        self._cards: list[dict] = []
        self._reason: str | None = None
        self._disk: dict = {"free": None, "total": None}
        self._first = threading.Event()  # set: no caller waits for the sample under way

    def snapshot(self) -> dict:
        """Return {ram, gpus, gpu_reason, disk}: RAM as it is now, the rest seconds old at most."""
        with self._lock:
            self._asked = time.monotonic()
            if not self._running:
                self._running = True
                self._first = threading.Event()
                threading.Thread(target=self._run, name="resources", daemon=True).start()
        self._first.wait(PATIENCE_S)
        self._first.set()
        too_old = time.monotonic() - self._sampled > self._interval_s + STUCK_S
        cards, reason = ([], NO_ANSWER) if too_old else (self._cards, self._reason)
        return {"ram": ram(), "gpus": cards, "gpu_reason": reason, "disk": self._disk}

    def _run(self) -> None:
        """Sample until nobody has asked for idle_after_s."""
        try:
            while self._is_wanted():
                self._disk = disk(self._path)
                self._cards, self._reason = self._read_gpus()
                self._sampled = time.monotonic()
                self._first.set()
                time.sleep(self._interval_s)
        except BaseException:  # a bug: the next ask starts anew
            self._running = False
            raise

    def _is_wanted(self) -> bool:
        """Whether to go on; says that it stops in the same breath, so that no ask is lost."""
        with self._lock:
            self._running = time.monotonic() - self._asked <= self._idle_after_s
            return self._running
