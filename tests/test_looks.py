"""What the pixels say: copies, blur, damage; looked at once, in a process of its own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scenes import jpeg, scene
from support import ROOT, picture, wait_until

from musubitlx import inspector, looks
from musubitlx.health import BLURRY
from musubitlx.lease import Lease
from musubitlx.looks import Inspections, Look


def put(project, name: str, image: Image.Image | bytes) -> None:
    (project.path / name).write_bytes(image if isinstance(image, bytes) else jpeg(image))


def run_inspector(project, **more) -> subprocess.Popen:
    argv = [sys.executable, "-m", "musubitlx.inspector", str(project.home.root), project.name]
    return subprocess.Popen(argv, cwd=ROOT, **more)


def inspected(project) -> dict[str, Look]:
    assert run_inspector(project).wait(timeout=60) == 0
    return looks.fresh(project)


# -- looking ---------------------------------------------------------------------------------------


def test_every_image_is_looked_at_once_and_its_thumbnail_made(project):
    for seed in range(3):
        put(project, f"{seed}.jpg", scene(seed))
    put(project, "cut.jpg", jpeg(scene(3))[:20_000])
    put(project, "page.png", b"<html>")
    assert len(looks.missing(project)) == 5
    found = inspected(project)
    assert looks.missing(project) == []
    assert [bool(found[f"{seed}.jpg"].problem) for seed in range(3)] == [False] * 3
    assert "damaged" in found["cut.jpg"].problem and "damaged" in found["page.png"].problem
    with Image.open(project.thumb_path("1.jpg")) as thumb:
        assert thumb.size == (320, 240)
    written = looks.path_of(project).stat().st_mtime_ns
    assert inspected(project) == found
    assert looks.path_of(project).stat().st_mtime_ns == written


def test_a_new_version_of_a_file_is_looked_at_anew_and_a_removed_one_forgotten(project):
    put(project, "a.jpg", scene(1))
    put(project, "b.jpg", scene(2))
    before = inspected(project)
    put(project, "a.jpg", scene(3))
    (project.path / "b.jpg").unlink()
    assert [path.name for path in looks.missing(project)] == ["a.jpg"]
    after = inspected(project)
    assert set(after) == {"a.jpg"}
    assert after["a.jpg"].phash != before["a.jpg"].phash
    assert set(looks.read(project)) == {"a.jpg"}


def test_an_inspector_that_was_killed_leaves_what_it_had_and_another_goes_on(project):
    for seed in range(40):
        put(project, f"{seed}.jpg", picture(seed, (2400, 1800)))
    killed = run_inspector(project)
    wait_until(lambda: 0 < len(looks.read(project)) < 40, what="the first looks", every=0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=10)
    known = looks.fresh(project)
    assert 0 < len(known) < 40
    assert known.items() <= inspected(project).items()
    assert looks.missing(project) == []


def test_two_inspectors_do_not_do_the_work_twice(project):
    put(project, "a.jpg", scene(1))
    project.hidden.mkdir()
    lease = Lease(project.hidden / "inspector.lock")
    assert lease.take()
    assert run_inspector(project).wait(timeout=30) == 0
    assert looks.read(project) == {}
    lease.give_back()
    assert len(inspected(project)) == 1


def test_an_inspector_of_a_folder_that_is_gone_just_ends(project):
    project.path.rmdir()
    assert run_inspector(project, stderr=subprocess.PIPE).wait(timeout=30) == 0
    assert not project.path.exists()


def test_a_server_starts_an_inspector_only_while_something_is_to_be_seen(project):
    inspections = Inspections()
    inspections.ask(project)
    assert inspections._running == {}
    for seed in range(3):
        put(project, f"{seed}.jpg", scene(seed))
    inspections.ask(project)
    inspections.ask(project)
    assert list(inspections._running) == ["ball"]
    wait_until(lambda: not looks.missing(project), what="the looks")
    inspections._running["ball"].wait(timeout=10)
    inspections.ask(project)
    assert inspections._running == {}


def test_images_that_come_one_by_one_are_each_looked_at(project):
    inspections = Inspections()
    for seed in range(5):
        put(project, f"{seed}.jpg", scene(seed, (320, 240)))
        assert inspections.finish(project, 8), f"image {seed}"
        for child in [*inspections._running.values()]:
            child.wait(timeout=10)


def test_an_inspector_that_gets_nowhere_is_not_started_again_and_again(project, monkeypatch):
    started = []

    class Ended:
        def poll(self):
            return 1

    def start(*_args, **_more):
        started.append(time.monotonic())
        return Ended()

    monkeypatch.setattr(looks, "start_detached", start)
    put(project, "a.jpg", scene(1))
    inspections = Inspections()
    for _ in range(50):
        inspections.ask(project)
    assert len(started) == 1
    put(project, "b.jpg", scene(2))
    inspections.ask(project)
    assert len(started) == 2


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"version": 0, "images": {}}', '{"version": 1, "images": {"a.jpg": 5}}'],
)
def test_odd_records_count_as_nothing_known(project, text):
    put(project, "a.jpg", scene(1))
    project.hidden.mkdir()
    looks.path_of(project).write_text(text)
    assert looks.read(project) == {}
    assert [path.name for path in looks.missing(project)] == ["a.jpg"]


# -- copies ----------------------------------------------------------------------------------------


def variants(image: Image.Image):
    width, height = image.size
    yield "again", jpeg(image, 60)
    yield "half", jpeg(image.resize((width // 2, height // 2)))
    yield "light", jpeg(ImageEnhance.Brightness(image).enhance(1.1))


def test_copies_are_found_and_different_pictures_are_not_taken_for_copies(project):
    for seed in range(8):
        put(project, f"scene {seed}.jpg", scene(seed))
        put(project, f"ball {seed}.jpg", picture(seed))
    for kind, data in variants(scene(0)):
        put(project, f"scene 0 {kind}.jpg", data)
    put(project, "twice.jpg", jpeg(scene(5)))
    exact, near = looks.groups(inspected(project))
    assert [sorted(group) for group in exact] == [["scene 5.jpg", "twice.jpg"]]
    assert near == [["scene 0 again.jpg", "scene 0 half.jpg", "scene 0 light.jpg", "scene 0.jpg"]]


def test_pairs_are_found_as_by_comparing_all_and_quickly():
    rng = random.Random(1)
    known = {}
    for number in range(400):
        phash = rng.getrandbits(64)
        known[f"{number}"] = Look((0, 0, 0), phash=phash, colours=(128,) * 48, digest=f"{number}")
        flips = rng.randint(0, 12)
        for bit in rng.sample(range(64), flips):
            phash ^= 1 << bit
        name = f"{number}b"
        known[name] = Look((0, 0, 0), phash=phash, colours=(128,) * 48, digest=name)
    pairs = set(looks._near_pairs(known))
    names = list(known)
    wanted = {
        (a, b)
        for place, a in enumerate(names)
        for b in names[place + 1 :]
        if (known[a].phash ^ known[b].phash).bit_count() <= looks.NEAR_BITS
    }
    assert {frozenset(pair) for pair in pairs} == {frozenset(pair) for pair in wanted}
    many = {
        str(n): Look((0, 0, 0), phash=rng.getrandbits(64), colours=(128,) * 48, digest=str(n))
        for n in range(3000)
    }
    alike = {str(n): Look((0, 0, 0), phash=7, colours=(9,) * 48, digest=str(n)) for n in range(400)}
    begun = time.process_time()
    looks.groups(many)
    assert len(looks.groups(alike)[1][0]) == 400
    assert time.process_time() - begun < 5


# -- blur ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_blurred_picture_is_told_from_a_sharp_one(seed):
    sharp = scene(seed)
    assert inspector.blur(sharp) < BLURRY - 0.08
    blurred = [inspector.blur(sharp.filter(ImageFilter.GaussianBlur(r))) for r in (3, 5)]
    assert all(value > BLURRY for value in blurred)


def test_a_sharp_subject_before_a_soft_background_is_sharp():
    sharp, soft = scene(1), scene(1).filter(ImageFilter.GaussianBlur(12))
    mask = Image.radial_gradient("L").resize(sharp.size).point(lambda value: 255 * (value < 70))
    assert inspector.blur(Image.composite(sharp, soft, mask)) < BLURRY


def test_grain_does_not_pass_for_sharpness():
    import numpy as np

    soft = np.asarray(scene(1).filter(ImageFilter.GaussianBlur(5))).astype(float)
    grain = np.random.default_rng(1).normal(0, 3, (*soft.shape[:2], 1))
    grainy = Image.fromarray((soft + grain).clip(0, 255).astype("uint8"))
    assert inspector.blur(grainy) > BLURRY


def test_of_a_picture_without_edges_nothing_is_said():
    assert inspector.blur(Image.new("RGB", (800, 600), "grey")) is None
    assert inspector.blur(Image.linear_gradient("L").resize((900, 900)).convert("RGB")) is None
    assert inspector.blur(Image.new("RGB", (20, 20))) is None


def test_what_only_the_pixels_tell_of_transparency_is_told(project):
    for name, alpha in (("through.png", 100), ("opaque.png", 255)):
        image = scene(1, (200, 150)).convert("RGBA")
        image.putalpha(alpha)
        image.save(project.path / name)
    found = inspected(project)
    assert "transparent" in found["through.png"].unfit
    assert found["opaque.png"].unfit is None


@pytest.mark.skipif(not hasattr(os, "nice"), reason="no priorities here")
def test_an_inspector_stands_back(project):
    for seed in range(30):
        put(project, f"{seed}.jpg", picture(seed, (1600, 1200)))
    running = run_inspector(project)
    try:
        wait_until(
            lambda: os.getpriority(os.PRIO_PROCESS, running.pid) == 19, what="a low priority"
        )
    finally:
        running.kill()
        running.wait(timeout=10)
