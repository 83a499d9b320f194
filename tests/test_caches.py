"""Caches are kept by what they were made from: exactly the stale ones are made again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient
from support import model_files, picture, wait_until

from musubitlx import caches
from musubitlx.caches import INDEX, begin, compare, finish, wanted_latents, wanted_texts

MADE = {"trainer": "practice"}
AREA = (256, 256)
SIZES = {"a": (320, 320), "b": (320, 160), "c": (160, 320)}


@pytest.fixture
def folder(project):
    """Three images of three shapes, one with a caption, and the caches of all."""
    for number, (stem, size) in enumerate(SIZES.items()):
        (project.path / f"{stem}.jpg").write_bytes(picture(number, size))
    project.set_caption("a.jpg", "a ball")
    make(project, latents(project))
    make(project, texts(project))
    return project


def latents(project, area=AREA, model="vae", **made_with) -> dict:
    return wanted_latents(project.images(), area, {**MADE, **made_with}, model_file(project, model))


def texts(project, trigger="ohwx", prompt="a thing", model="encoder", **made_with) -> dict:
    made_with = {**MADE, "fp8": True, **made_with}
    return wanted_texts(project.images(), trigger, prompt, made_with, model_file(project, model))


def model_file(project, name: str) -> str:
    path = project.home.root / f"{name}.safetensors"
    if not path.exists():
        write_tensor(path, f"{name}.weight")
    return str(path)


def make(project, wanted: dict) -> None:
    """What a caching stage does, and the runner around it."""
    found = compare(project, wanted)
    begin(project, wanted, found)
    for name in found.stale:
        write_cache(project.path / name)
    finish(project, wanted)


def write_cache(path) -> None:
    """A file such as Musubi writes at that place."""
    texts = path.name.endswith("_te.safetensors")
    write_tensor(path, "varlen_vl_embed_float32" if texts else "latents_1x8x8_float32")


def write_tensor(path, name: str) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({name: np.zeros(4, np.float32)}, path)


def stale(project, wanted) -> dict[str, str]:
    return compare(project, wanted).stale


def stems(found: dict[str, str]) -> set[str]:
    return {name.split("_", 1)[0] for name in found}


def test_nothing_changed_is_nothing_to_do(folder):
    for wanted in (latents(folder), texts(folder)):
        found = compare(folder, wanted)
        assert not found.stale and not found.orphans and len(found.fresh) == 3
        assert found.sentence == "nothing to do, all 3 caches are up to date"


def test_a_changed_caption_concerns_its_own_text_alone(folder):
    folder.set_caption("b.jpg", "a box")
    assert stale(folder, texts(folder)) == {"b_qi_te.safetensors": "text"}
    assert stale(folder, latents(folder)) == {}


def test_a_caption_that_is_another_file_with_the_same_final_text_concerns_nothing(folder):
    folder.set_caption("a.jpg", "ohwx, a ball")  # the trigger word is in it already
    assert stale(folder, texts(folder)) == {}


def test_a_changed_trigger_word_concerns_all_texts_but_those_that_hold_it(folder):
    folder.set_caption("b.jpg", "sks and ohwx")
    make(folder, texts(folder))
    changed = stale(folder, texts(folder, trigger="sks"))
    assert stems(changed) == {"a", "c"} and set(changed.values()) == {"text"}
    assert stale(folder, latents(folder)) == {}


def test_a_changed_image_of_the_same_size_concerns_its_latents_alone(folder):
    (folder.path / "b.jpg").write_bytes(picture(9, SIZES["b"]))
    assert stale(folder, latents(folder)) == {"b_0320x0160_qi.safetensors": "image"}
    assert stale(folder, texts(folder)) == {}


def test_an_image_of_another_size_leaves_its_old_latents_without_an_image(folder):
    (folder.path / "b.jpg").write_bytes(picture(9, (480, 240)))
    found = compare(folder, latents(folder))
    assert found.stale == {"b_0480x0240_qi.safetensors": "new"}
    assert found.orphans == ["b_0320x0160_qi.safetensors"]


def test_a_changed_resolution_concerns_the_latents_whose_bucket_changes(folder):
    assert stems(stale(folder, latents(folder, area=(512, 512)))) == {"a", "b", "c"}
    slightly = (272, 256)  # the long pictures keep their buckets
    buckets = {name: row["of"] for name, row in latents(folder)["files"].items()}
    after = {name: row["of"] for name, row in latents(folder, area=slightly)["files"].items()}
    concerned = {name for name in after if after[name] != buckets[name]}
    assert concerned and set(stale(folder, latents(folder, area=slightly))) == concerned
    assert stale(folder, texts(folder)) == {}


def test_a_removed_image_takes_its_caches_with_it_whoever_removed_it(folder):
    (folder.path / "c.jpg").unlink()
    for wanted, name in (
        (latents(folder), "c_0160x0320_qi.safetensors"),
        (texts(folder), "c_qi_te.safetensors"),
    ):
        found = compare(folder, wanted)
        assert (found.stale, found.orphans) == ({}, [name])
        begin(folder, wanted, found)
        assert not (folder.path / name).exists()
    assert (folder.path / "a_qi_te.safetensors").exists()


def test_another_model_file_trainer_or_precision_concerns_all(folder):
    for more, reason in (({"model": "dit"}, "model"), ({"trainer": "musubi 1"}, "trainer")):
        assert set(stale(folder, latents(folder, **more)).values()) == {reason}
        assert set(stale(folder, texts(folder, **more)).values()) == {reason}
    assert set(stale(folder, texts(folder, fp8=False)).values()) == {"fp8"}


def test_a_touched_image_is_read_and_found_the_same(folder):
    os.utime(folder.path / "a.jpg", (1, 1))
    assert stale(folder, latents(folder)) == {}


def test_a_copied_folder_keeps_its_caches(folder, home):
    from musubitlx.projects import Project

    shutil.copytree(folder.path, home.output / "copy")
    copy = Project(home, "copy")
    assert stale(copy, latents(copy)) == {} == stale(copy, texts(copy))
    for path in copy.path.glob("*.jpg"):
        os.utime(path)  # a copy that does not keep times
    assert stale(copy, latents(copy)) == {}


def test_a_cache_somebody_else_wrote_is_not_trusted(folder):
    path = folder.path / "a_qi_te.safetensors"
    write_cache(path)
    os.utime(path, (5, 5))
    assert stale(folder, texts(folder)) == {"a_qi_te.safetensors": "file"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"version": 99, "caches": {}}', b'{"version": 1, "caches": 3}'],
)
def test_without_an_index_all_are_of_unknown_origin(folder, content):
    (folder.path / INDEX).write_bytes(content)
    assert set(stale(folder, latents(folder)).values()) == {"unknown"}


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@patient
@given(ODD, st.sampled_from(["with", "of", "file", "image", None]))
def test_odd_rows_of_the_index_are_stale_and_never_a_crash(folder, odd, part):
    before = (folder.path / INDEX).read_bytes()
    data = json.loads(before)
    row = data["caches"]["a_0320x0320_qi.safetensors"]
    if part is None:
        data["caches"]["a_0320x0320_qi.safetensors"] = odd
    else:
        row[part] = odd
    (folder.path / INDEX).write_text(json.dumps(data))
    assert "a_0320x0320_qi.safetensors" in stale(folder, latents(folder))
    (folder.path / INDEX).write_bytes(before)


def making(project, wanted: dict) -> list[str]:
    """A caching stage that has made its caches, and whose end nobody has noted yet."""
    found = compare(project, wanted)
    begin(project, wanted, found)
    for name in found.stale:
        write_cache(project.path / name)
    return sorted(found.stale)


def test_a_cut_cache_is_not_noted_and_so_made_again(folder):
    wanted = latents(folder, area=(512, 512))
    making(folder, wanted)
    cut = folder.path / "a_0320x0320_qi.safetensors"
    cut.write_bytes(cut.read_bytes()[:-2])
    assert stale(folder, wanted) == {cut.name: "cut"}
    finish(folder, wanted)
    assert stale(folder, wanted) == {cut.name: "unknown"}
    assert compare(folder, wanted).foreign == []


def test_an_image_that_changed_while_its_cache_was_made_is_made_again(folder):
    wanted = latents(folder, area=(512, 512))
    making(folder, wanted)
    (folder.path / "a.jpg").write_bytes(picture(8, SIZES["a"]))
    assert stems(stale(folder, wanted)) == {"a"}
    finish(folder, wanted)
    assert stems(stale(folder, wanted)) == {"a"}


def test_caches_made_while_the_model_file_was_replaced_are_made_again(folder):
    wanted = latents(folder, area=(512, 512))
    making(folder, wanted)
    write_tensor(folder.home.root / "vae.safetensors", "another.weight")
    finish(folder, wanted)
    assert len(stale(folder, wanted)) == 3


def test_a_model_file_replaced_while_the_run_waited_is_the_one_that_counts(folder):
    wanted = latents(folder, area=(512, 512))  # as it goes into the job's record
    write_tensor(folder.home.root / "vae.safetensors", "another.weight")
    assert stale(folder, latents(folder)) == dict.fromkeys(wanted["files"], "model")
    make(folder, wanted)
    assert stale(folder, latents(folder, area=(512, 512))) == {}


def test_what_was_finished_before_the_runner_was_killed_is_known(folder):
    wanted = latents(folder, area=(512, 512))
    a, b, c = making(folder, wanted)  # and nobody lives to say that it has ended
    (folder.path / a).unlink()
    (folder.path / b).write_bytes(b"")
    assert stale(folder, wanted) == {a: "new", b: "cut"}
    make(folder, wanted)
    assert stale(folder, wanted) == {}
    rows = json.loads((folder.path / INDEX).read_text())["caches"]
    assert caches.MAKING not in [row["file"] for row in rows.values()]
    assert (folder.path / c).exists()


def test_two_images_that_change_places_are_seen_even_with_equal_size_and_time(folder):
    one, other = (folder.path / name for name in ("a.bmp", "d.bmp"))
    (folder.path / "a.jpg").unlink()
    for number, path in enumerate((one, other)):
        path.write_bytes(picture(number, (320, 320), "BMP"))
        os.utime(path, (5, 5))
    assert one.stat().st_size == other.stat().st_size
    make(folder, latents(folder))
    assert stale(folder, latents(folder)) == {}
    between = folder.path / "x"
    one.rename(between), other.rename(one), between.rename(other)
    assert stems(stale(folder, latents(folder))) == {"a", "d"}


def test_an_image_written_over_with_its_old_time_is_seen(folder):
    path = folder.path / "b.jpg"
    size, old = path.stat().st_size, path.stat().st_mtime_ns
    new = picture(9, SIZES["b"])[:size]
    path.write_bytes(new + bytes(size - len(new)))
    os.utime(path, ns=(old, old))
    assert path.stat().st_size == size
    assert stems(stale(folder, latents(folder))) == {"b"}


# -- what is no cache ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["my_style_qi", "my_100x100_qi", "x_1024x1024_qi", "_qi"])
def test_a_lora_that_musubi_would_take_for_latents_is_named_and_left_alone(folder, name):
    path = folder.path / f"{name}.safetensors"
    write_tensor(path, "lora_unet_transformer_blocks_0.lora_down.weight")
    found = compare(folder, latents(folder))
    assert (found.foreign, found.orphans, found.stale) == ([path.name], [], {})
    assert path.name in found.trouble
    begin(folder, latents(folder), found)
    assert path.exists()


def test_a_lora_called_like_a_text_is_left_alone(folder):
    path = folder.path / "style_qi_te.safetensors"
    write_tensor(path, "lora_unet_transformer_blocks_0.lora_down.weight")
    found = compare(folder, texts(folder))
    assert (found.foreign, found.orphans) == ([], [])  # training never looks at it


def test_a_lora_in_the_place_of_a_cache_is_not_overwritten(folder):
    path = folder.path / "a_qi_te.safetensors"
    write_tensor(path, "lora_unet_transformer_blocks_0.lora_down.weight")
    assert compare(folder, texts(folder)).foreign == [path.name]
    path.unlink()
    path.mkdir()
    assert compare(folder, texts(folder)).foreign == [path.name]


def test_a_file_half_copied_is_not_removed_unless_it_lies_in_the_place_of_a_cache(folder):
    path = folder.path / "style_0064x0064_qi.safetensors"
    path.write_bytes(b"\x10")
    assert compare(folder, latents(folder)).foreign == [path.name]


def test_other_names_are_no_concern(folder):
    for name in ("ball.safetensors", "my_qi_lora.safetensors", "a_qie.safetensors"):
        write_tensor(folder.path / name, "lora.weight")
    for wanted in (latents(folder), texts(folder)):
        found = compare(folder, wanted)
        assert (found.orphans, found.foreign) == ([], [])


# -- whole runs ------------------------------------------------------------------------------------

SETTINGS = {
    "trigger_word": "ohwx",
    "prompt": "a thing",
    "resolution": "256x256",
    "epochs": 1,
    "image_repeats": 1,
    "output_name": "lora",
}


def run(server, **more) -> tuple[dict, str]:
    """Train, and what it did: which cache files were written anew, by kind; and the log."""
    folder = server.home / "output/ball"
    before = cache_stamps(folder)
    told = server.post("/api/check", {"project": "ball", "settings": {**SETTINGS, **more}})
    job = server.post("/api/projects/ball/train", {"settings": {**SETTINGS, **more}})["id"]
    ended = server.wait_for(job, seconds=60)
    assert ended["state"] == "succeeded", server.log(job)
    after = cache_stamps(folder)
    made = {name for name, stamp in after.items() if before.get(name) != stamp}
    latents_made = {name.split("_")[0] for name in made if not name.endswith("_te.safetensors")}
    texts_made = {name.split("_")[0] for name in made if name.endswith("_te.safetensors")}
    log = server.log(job)
    skipped = [stage["skipped"] for stage in told["stages"]]
    assert skipped == [not latents_made, not texts_made, False]  # as the page said before
    assert log.count("=== Stage") == skipped.count(False)
    gone = set(before) - set(after)
    return {"latents": latents_made, "texts": texts_made, "gone": gone}, log


def cache_stamps(folder) -> dict:
    return {
        path.name: (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.glob("*_qi*.safetensors")
    }


@pytest.fixture
def ball(live_server):
    live_server.post("/api/projects", {"name": "ball"})
    files = {f"{stem}.jpg": picture(n, size) for n, (stem, size) in enumerate(SIZES.items())}
    assert live_server.upload("ball", files).status_code == 201
    return live_server


def test_runs_make_just_the_caches_that_changed(ball):
    everything = set(SIZES)
    assert run(ball)[0] == {"latents": everything, "texts": everything, "gone": set()}
    made, log = run(ball)
    assert made == {"latents": set(), "texts": set(), "gone": set()}
    assert "caches are up to date" in log and "Saved cache" not in log

    ball.put("/api/projects/ball/images/a.jpg/caption", {"text": "a red ball"})
    assert run(ball)[0] == {"latents": set(), "texts": {"a"}, "gone": set()}
    (ball.home / "output/ball/b.jpg").write_bytes(picture(7, SIZES["b"]))
    assert run(ball)[0] == {"latents": {"b"}, "texts": set(), "gone": set()}
    assert run(ball, resolution="512x512")[0]["latents"] == everything
    assert run(ball, resolution="512x512", trigger_word="sks")[0]["texts"] == everything
    (ball.home / "output/ball/c.jpg").unlink()
    made, _ = run(ball, resolution="512x512", trigger_word="sks")
    gone = {"c_0160x0320_qi.safetensors", "c_qi_te.safetensors"}
    assert made == {"latents": set(), "texts": set(), "gone": gone}
    assert run(ball, resolution="512x512", trigger_word="sks", vram_profile="24+")[0] == {
        "latents": set(),
        "texts": {"a", "b"},
        "gone": set(),
    }


def test_a_switched_model_file_makes_its_own_caches_again(ball):
    model_files(ball.home)
    run(ball)
    vae = ball.home / "diffusion_pytorch_model.safetensors"
    os.utime(vae, (1_000_000, 1_000_000))
    assert run(ball)[0] == {"latents": set(SIZES), "texts": set(), "gone": set()}
    moved = ball.home / "models" / vae.name
    moved.parent.mkdir(exist_ok=True)
    vae.rename(moved)
    assert run(ball)[0] == {"latents": set(), "texts": set(), "gone": set()}


def test_caches_of_the_practice_trainer_are_not_taken_for_real_ones(with_stand_in):
    server = with_stand_in()
    settings = {"settings": {**SETTINGS, "resolution": "64x64"}}
    job = server.post("/api/projects/ball/train", settings)["id"]
    server.wait_for(job)
    index = json.loads((server.home / "output/ball" / INDEX).read_text())
    assert {row["with"]["trainer"] for row in index["caches"].values()} == {"musubi 0.3.4"}
    server.stop()
    server.arguments = (*server.arguments, "--practice")
    server.start()
    told = server.post("/api/check", {"project": "ball", **settings})
    assert "made by another trainer" in told["stages"][0]["note"]


def test_what_was_made_before_a_stop_is_kept(with_stand_in):
    server = with_stand_in(images=4, env={"STAND_IN_CACHE_S": "0.6"})
    job = server.post("/api/projects/ball/train", {"settings": SETTINGS})["id"]
    folder = server.home / "output/ball"
    wait_until(lambda: len(list(folder.glob("*_qi.safetensors"))) >= 2, what="two caches")
    server.post(f"/api/jobs/{job}/stop")
    server.wait_for(job)
    there = len(list(folder.glob("*_qi.safetensors")))
    note = server.post("/api/check", {"project": "ball", "settings": SETTINGS})["stages"][0]["note"]
    assert 2 <= there < 4 and note.startswith(f"{4 - there} of 4 caches to make")


def test_an_image_replaced_by_one_of_another_size_while_the_run_waited_is_named(with_stand_in):
    server = with_stand_in(env={"STAND_IN_CACHE_S": "0.5"})
    first, second = (
        server.post("/api/projects/ball/train", {"settings": {**SETTINGS, "output_name": name}})
        for name in ("one", "two")
    )
    wait_until(lambda: "Stage 3" in server.log(first["id"]), what="the first run's training")
    (server.home / "output/ball/ball 1.jpg").write_bytes(picture(9, (300, 200)))
    ended = server.wait_for(second["id"])
    assert ended["state"] == "failed"
    assert ended["reason"] == "ball 1.jpg has another size than when this run was queued."
    assert "new run" in ended["hint"]


def test_a_run_that_would_lose_a_file_does_not_start_nor_go_on(ball):
    run(ball)
    path = ball.home / "output/ball/style_qi.safetensors"
    write_tensor(path, "lora.weight")
    told = ball.post("/api/check", {"project": "ball", "settings": SETTINGS})["errors"]
    assert [error["field"] for error in told] == ["output_dir"]
    assert told[0]["error"].startswith("style_qi.safetensors in the output folder")
    path.unlink()
    job = ball.post("/api/projects/ball/train", {"settings": {**SETTINGS, "epochs": 200}})["id"]
    ball.wait_for(job, "running")
    waits = ball.post("/api/projects/ball/train", {"settings": {**SETTINGS, "output_name": "b"}})
    write_tensor(path, "lora.weight")
    ball.post(f"/api/jobs/{job}/stop")
    ended = ball.wait_for(waits["id"])
    assert ended["state"] == "failed" and "style_qi.safetensors" in ended["reason"]
    assert path.exists()


def test_a_file_that_cannot_be_written_ends_the_run_with_its_name(ball):
    run(ball)
    job = ball.post("/api/projects/ball/train", {"settings": {**SETTINGS, "epochs": 200}})["id"]
    ball.wait_for(job, "running")
    waits = ball.post("/api/projects/ball/train", {"settings": {**SETTINGS, "output_name": "b"}})
    captions = ball.home / "output/ball/dataset.jsonl"
    wait_until(lambda: "Stage 3" in ball.log(job), what="training")
    captions.unlink()
    captions.mkdir()  # stands for a place where nothing can be written
    ball.post(f"/api/jobs/{job}/stop")
    ended = ball.wait_for(waits["id"])
    assert ended["state"] == "failed" and "could not go on" in ended["reason"]
    assert "dataset.jsonl" in ended["reason"]


def test_caches_finished_before_the_runner_is_killed_are_kept(with_stand_in):
    server = with_stand_in(images=4, env={"STAND_IN_CACHE_S": "0.6"})
    job = server.post("/api/projects/ball/train", {"settings": SETTINGS})["id"]
    folder = server.home / "output/ball"
    wait_until(lambda: len(list(folder.glob("*_qi.safetensors"))) >= 2, what="two caches")
    status = json.loads((server.home / "output/.jobs" / job / "status.json").read_text())
    os.kill(status["runner"]["pid"], signal.SIGKILL)
    assert server.wait_for(job)["state"] == "interrupted"
    again = server.post("/api/projects/ball/train", {"settings": SETTINGS})["id"]
    server.wait_for(again)
    made = re.search(r"^(\d) of 4 caches to make", server.log(again), re.M)
    assert made and 1 <= int(made[1]) <= 2, server.log(again)


def test_the_index_is_written_whole(folder):
    assert json.loads((folder.path / INDEX).read_text())["version"] == caches.VERSION
    assert not list(folder.path.glob(".*.part"))
