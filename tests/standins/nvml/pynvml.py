"""Passes for NVIDIA's library on a machine with one card or more; for PYTHONPATH.

STAND_IN_CARDS is how many, STAND_IN_CARD their name, STAND_IN_VRAM_GB their memory,
STAND_IN_USED_GB what others hold of it, the first of them process STAND_IN_PID.
"""

import os
from types import SimpleNamespace

GB = 1024**3
nvmlMemory_v2 = 2


class NVMLError(Exception):
    pass


def nvmlInit():
    pass


def nvmlShutdown():
    pass


def nvmlDeviceGetCount():
    return int(os.environ.get("STAND_IN_CARDS", "1"))


def nvmlDeviceGetHandleByIndex(index):
    return index


def nvmlDeviceGetMemoryInfo(handle, version=None):
    total = float(os.environ.get("STAND_IN_VRAM_GB", "24"))
    used = float(os.environ.get("STAND_IN_USED_GB", "0.5"))
    return SimpleNamespace(total=int(total * GB), used=int(used * GB))


def nvmlDeviceGetName(handle):
    return os.environ.get("STAND_IN_CARD", "NVIDIA GeForce RTX 4090")


def nvmlDeviceGetTemperature(handle, sensor):
    return 50


def nvmlDeviceGetPowerUsage(handle):
    return 100_000


def nvmlDeviceGetComputeRunningProcesses(handle):
    used = float(os.environ.get("STAND_IN_USED_GB", "0.5"))
    pid = int(os.environ.get("STAND_IN_PID") or os.getpid())
    return [SimpleNamespace(pid=pid, usedGpuMemory=int(used * GB))] if used > 1 else []
