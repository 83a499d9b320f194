"""Settings, checks and configurations over HTTP: whatever is typed, no crash and no start."""

from __future__ import annotations

import json
import random
import string

import pytest
from support import SMALL, pictures


@pytest.fixture
def ball(live_server):
    live_server.post("/api/projects", {"name": "ball"})
    assert live_server.upload("ball", pictures(3)).status_code == 201
    return live_server


def check(server, **more) -> dict:
    return server.post("/api/check", {"project": "ball", "settings": {**SMALL, **more}})


def card(program, root, **more):
    """The program on a machine with a graphics card."""
    env = {"PYTHONPATH": str(root / "standins" / "nvml"), **more}
    return program("--practice", env=env)


@pytest.fixture
def root():
    from pathlib import Path

    return Path(__file__).resolve().parent


# -- what the page is told -------------------------------------------------------------------------


def test_the_check_says_all_that_a_run_takes(ball):
    told = check(ball)
    assert [stage["name"] for stage in told["stages"]] == ["latents", "text_encoder", "train"]
    assert [stage["skipped"] for stage in told["stages"]] == [False, False, False]
    assert told["stages"][0]["note"] == "3 of 3 caches to make: 3 are new"
    numbers = told["estimate"]
    assert numbers["steps"] == told["steps"] > 0
    for name in ("seconds", "seconds_per_step", "vram", "ram"):
        assert numbers[name] >= 0
    assert numbers["disk"]["all"] >= numbers["disk"]["checkpoints"] > 0
    assert numbers["time_source"] == "guess"


@pytest.mark.parametrize(("gb", "profile"), [("11.99", "12"), ("23.99", "24"), ("47.5", "24+")])
def test_the_card_that_is_found_chooses_the_profile(program, root, gb, profile):
    server = card(program, root, STAND_IN_VRAM_GB=gb)
    suggested = server.get("/api/state")["suggested"]
    assert suggested["vram_profile"] == profile
    assert suggested["gpu"] == "NVIDIA GeForce RTX 4090"
    assert abs(suggested["vram"] / 2**30 - float(gb)) < 0.01


def test_without_a_card_nothing_is_suggested(live_server):
    assert live_server.get("/api/state")["suggested"] is None


def test_the_flags_of_a_profile_are_those_this_musubi_knows(live_server):
    profiles = {one["id"]: one for one in live_server.get("/api/state")["profiles"]}
    assert profiles["12"]["flags"].endswith("--max_grad_norm 1.0 --block_swap_h2d_only")
    assert profiles["24+"]["flags"] == "--gradient_checkpointing --max_grad_norm 1.0"
    page = live_server.call("GET", "/").text
    assert profiles["16"]["flags"] in page


def test_recipes_come_for_the_number_of_images(ball):
    for images in (5, 150):
        told = ball.get(f"/api/recipes?images={images}")
        assert told["problems"] == []
        ids = {one["id"] for one in told["recipes"]}
        assert {"person", "style", "object", "few-images", "many-images", "quick-look"} <= ids
        for one in told["recipes"]:
            assert one["why"] and one["label"]
            settings = {**one["settings"], "recipe": one["id"]}
            answer = check(ball, **settings)
            assert answer["errors"] == [], one["id"]
    assert ball.call("GET", "/api/recipes?images=many").status_code == 422


def test_every_recipe_passes_the_check_as_it_is_with_every_profile(ball):
    for one in ball.get("/api/recipes?images=3")["recipes"]:
        for profile in ("12", "16", "24", "24+"):
            answer = ball.post(
                "/api/check",
                {"project": "ball", "settings": {**one["settings"], "vram_profile": profile}},
            )
            assert answer["errors"] == []
            assert answer["estimate"]["steps"] == one["steps"]


def test_a_broken_recipe_of_the_user_s_own_is_named_and_the_others_are_there(ball):
    folder = ball.home / "configs/recipes"
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text("label: Mine\nsteps: [")
    told = ball.get("/api/recipes?images=10")
    assert len(told["recipes"]) >= 6
    (problem,) = told["problems"]
    assert "mine.yaml" in problem["error"]


def test_configurations_are_saved_listed_loaded_and_deleted(ball):
    ball.put("/api/config", {"new_name": "my face", "settings": {**SMALL, "epochs": 7}})
    assert [one["name"] for one in ball.get("/api/configs")["configs"]] == ["my face"]
    assert ball.get("/api/config?name=my%20face")["settings"]["epochs"] == 7
    assert ball.call("DELETE", "/api/config?name=my%20face").status_code == 200
    assert ball.get("/api/configs")["configs"] == []
    assert ball.call("DELETE", "/api/config?name=my%20face").status_code == 404
    assert ball.call("DELETE", "/api/config?name=models").status_code == 422


def test_a_loaded_configuration_says_what_it_held(ball):
    text = "epochs: 3\noutput_dir: a/b\nlora_rank: lots\nno_such: 1\nrecipe: person\n"
    (ball.home / "configs/bare.yaml").write_text(text)
    told = ball.get("/api/config?name=bare")
    assert told["given"] == ["epochs", "recipe"]
    assert (told["settings"]["epochs"], told["settings"]["output_dir"]) == (3, "my_lora")
    ball.put("/api/config", {"settings": SMALL})
    assert set(ball.get("/api/config")["given"]) == set(told["settings"])


@pytest.mark.parametrize(
    "name", ["draft-x", "DRAFT-x", "draft-", "Last_Config", "", None, 5, "a/b"]
)
def test_a_new_name_that_is_the_page_s_own_is_refused_and_nothing_is_written(ball, name):
    answer = ball.call("PUT", "/api/config", json={"new_name": name, "settings": SMALL})
    assert answer.status_code == 422
    assert answer.json()["field"] == "name" and "can't be used" in answer.json()["error"]
    assert list((ball.home / "configs").rglob("*.yaml")) == []


# -- rubbish ---------------------------------------------------------------------------------------

PIECES = (
    *("--", "-", "--fp8_base", "--fp8_scaled", "--no_such", "--blocks_to_swap", "70", "-5", "nan"),
    *("--lr_scheduler", "cosine", "'", '"', "\\", "$(reboot)", "`id`", "; rm -rf /", "|", "&&"),
    *("--optimizer_args", "a=b", "betas=", "--network_args", "=", "--resume", "/nowhere", "–fp8"),
    *("--dit", "x", "--output_dir", "../..", "--sample_prompts", "\u0000", "\u2028", "é", "🎨"),
    *("--max_grad_norm", "1e999", "--save_every_n_epochs", "0", "--config_file", "@x", "%s", "{}"),
)
BROKEN = ("--no_such", "'open", "--fp8_scaled", "--blocks_to_swap", "--blocks_to_swap x", "stray")


def flag_lines(count: int) -> list[str]:
    """Lines that can't be right: pieces at random, one that is wrong for sure among them."""
    rng = random.Random(7)
    return [
        " ".join([*rng.choices(PIECES, k=rng.randint(0, 6)), rng.choice(BROKEN)])
        for _ in range(count)
    ]


def test_hundreds_of_broken_flag_lines_are_refused_each_with_a_sentence(ball):
    for line in flag_lines(300):
        answer = ball.call(
            "POST", "/api/projects/ball/train", json={"settings": {**SMALL, "advanced_flags": line}}
        )
        assert answer.status_code == 422, line
        body = answer.json()
        assert body["error"] and all(one["error"] for one in body["errors"])
        assert {one["field"] for one in body["errors"]} == {"advanced_flags"}, line
    assert ball.get("/api/jobs") == []


def test_hundreds_of_broken_prompts_are_refused_each_with_a_sentence(ball):
    rng = random.Random(8)
    for _ in range(200):
        words = rng.choices(["a cat", "n scale", "{{trigger}}", "#", "é", "\t", "  ", "d 5"], k=3)
        wrong = rng.choice(["--w 12", "--w", "--seed 5", "--s 20.5", "--l 4,5", "--xyz 1", "--f 3"])
        text = f"{' '.join(words)} x {wrong}".lstrip("# \t")
        settings = {**SMALL, "samples_enabled": True, "sample_prompt_text": text}
        answer = ball.call("POST", "/api/projects/ball/train", json={"settings": settings})
        assert answer.status_code == 422, text
        fields = {one["field"] for one in answer.json()["errors"]}
        assert fields == {"sample_prompt_text"}, text
        assert "Line 1" in answer.json()["error"]
    assert ball.get("/api/jobs") == []


def test_hundreds_of_broken_yaml_files_are_told_or_loaded_and_start_nothing(ball):
    rng = random.Random(9)
    good = "epochs: 3\nlearning_rate: 5e-5\ntrigger_word: ohwx\nresolution: 512x512\n"
    statuses = set()
    for number in range(300):
        chars = list(good)
        for _ in range(rng.randint(1, 12)):
            place = rng.randrange(len(chars))
            chars[place] = rng.choice(string.printable + "\x00é\u2028&*!{}[]:")
        path = ball.home / f"configs/broken{number % 10}.yaml"
        path.write_text("".join(chars), encoding="utf-8")
        answer = ball.call("GET", f"/api/config?name={path.stem}")
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 422), path.read_text()
        body = answer.json()
        if answer.status_code == 422:
            assert path.name in body["error"]
        else:
            assert set(body["settings"]) and all(one["error"] for one in body["problems"])
            assert check(ball, **body["settings"])["errors"] is not None
    assert statuses == {200, 422}
    assert ball.get("/api/jobs") == []


ODD = [None, True, 0, -1, 1.5, 1e308, "", "x", "é" * 300, [], [[]], {}, {"a": 1}, "\ud800", "\x00"]


def test_odd_values_for_every_setting_are_told_at_their_field(ball):
    names = ball.get("/api/state")["settings"]
    for name in names:
        for value in ODD:
            body = json.dumps({"project": "ball", "settings": {**SMALL, name: value}})
            headers = {"Content-Type": "application/json"}
            answer = ball.call("POST", "/api/check", data=body, headers=headers)
            assert answer.status_code == 200, (name, value)
            told = answer.json()
            assert isinstance(told["errors"], list)


def test_what_looks_like_a_shell_is_passed_as_it_stands_and_run_by_nobody(ball):
    line = "--training_comment '$(touch x); `touch y` && touch z'"
    told = check(ball, advanced_flags=line)
    assert told["errors"] == []
    job = ball.post("/api/projects/ball/train", {"settings": {**SMALL, "advanced_flags": line}})
    assert ball.wait_for(job["id"])["state"] == "succeeded"
    assert not [p for p in ball.home.rglob("*") if p.name in ("x", "y", "z")]
