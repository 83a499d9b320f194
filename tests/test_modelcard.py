"""The model card: what it says, that it is good Markdown, and that a person's words stay."""

from __future__ import annotations

import re

import pytest
import yaml
from records import NOW, a_run, drawn

from musubitlx import modelcard

PROGRESS = {"total": 30, "epochs": 3}
ARGV = [
    *("--dit", "/secret/place/dit.safetensors", "--network_dim", "16", "--network_alpha", "8"),
    *("--learning_rate", "1e-4", "--optimizer_type", "AdamW", "--seed", "42"),
    *("--learning_rate", "5e-05", "--fp8_base", "--wandb_api_key", "abc123"),
    *("--huggingface_token=abc123", "--logging_dir", "/secret/place/logs", "--sdpa"),
]


def written(project, job) -> str:
    path = modelcard.write(project, job, progress=PROGRESS, ended=NOW)
    return path.read_text(encoding="utf-8")


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_says_what_ran(project):
    job = a_run(project, "one", argv=ARGV, losses={step: 0.5 for step in range(1, 31)})
    text = written(project, job)
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", text, re.M))
    assert rows == {
        "Images": "5",
        "Image repeats": "2",
        "Epochs": "3",
        "Steps": "30",
        "Batch size": "1",
        "Resolution": "512x512",
        "LoRA rank": "16",
        "Dims (alpha)": "8",
        "Learning rate": "5e-05",  # the later one counts
        "Optimizer": "AdamW",
        "Seed": "42",
        "Final loss": "0.5, mean of the last 10 steps",
        "Further flags": "`--fp8_base --sdpa`",
    }
    assert "Trigger word: `ohwx`" in text
    assert 'weight_name="ball.safetensors"' in text
    assert "- `ohwx at night`" in text
    assert "with Musubi Tuner 0.3.4 and MusubiTLX" in text


def test_nothing_of_the_machine_gets_into_it(project):
    text = written(project, a_run(project, "one", argv=ARGV))
    assert "secret" not in text and "abc123" not in text and str(project.home.root) not in text


def test_the_front_matter_is_what_hugging_face_reads(project):
    job = a_run(project, "one")
    first = [drawn(project, "e000001", NOW - 950, prompt) for prompt in (0, 1)]
    last = [drawn(project, "e000003", NOW - 905, prompt) for prompt in (0, 1)]
    text = written(project, job)
    assert text.startswith("---\n")
    head = front_matter(text)
    assert head["base_model"] == "Qwen/Qwen-Image"
    assert head["instance_prompt"] == "ohwx"
    assert "lora" in head["tags"]
    assert head["widget"] == [
        {"text": "ohwx on a table", "output": {"url": f"sample/{last[0]}"}},
        {"text": "ohwx at night", "output": {"url": f"sample/{last[1]}"}},
    ]
    assert f"![ohwx on a table](sample/{last[0]})" in text
    assert not any(name in text for name in first)


@pytest.mark.parametrize(
    "word",
    ['say "x": #1 | <b>', "`a` ``b", "---", "[x](y) *z* \\", "äö 猫 \U0001f431", "null", "a\x85b"],
)
def test_words_of_people_stay_what_they_are(project, word):
    drawn(project, "e000003", NOW - 905)
    job = a_run(project, "one", trigger_word=word, prompts=[word], recipe=word)
    text = written(project, job)
    head = front_matter(text)
    assert head["instance_prompt"] == word
    assert head["widget"][0]["text"] == word
    assert "<b>" not in text.split("## Training")[1]


def test_a_run_without_samples_or_trigger_has_a_card_too(project):
    text = written(project, a_run(project, "one", trigger_word="", prompts=[], output_name="äö x"))
    assert "instance_prompt" not in text and "widget" not in text and "Example prompts" not in text
    assert "None" not in text


def test_a_card_as_it_was_made_is_made_anew_and_an_edited_one_stays(project):
    job = a_run(project, "one")
    main, other = project.path / "LORA_README.md", project.path / "LORA_README.ball.md"
    modelcard.write(project, job, progress=PROGRESS, ended=NOW)
    main.write_bytes(main.read_bytes().replace(b"\n", b"\r\n"))  # an editor, a checkout
    again = a_run(project, "two", trigger_word="again")
    assert modelcard.write(project, again, progress=PROGRESS, ended=NOW) == main
    assert "again" in main.read_text()
    mine = main.read_text().replace("# ball", "# My ball")
    main.write_text(mine)
    assert modelcard.write(project, job, progress=PROGRESS, ended=NOW) == other
    assert main.read_text() == mine
    other.write_text("mine, too")
    assert modelcard.write(project, job, progress=PROGRESS, ended=NOW) is None
    assert other.read_text() == "mine, too"
    assert {path.name for path in modelcard.cards(project)} == {main.name, other.name}


@pytest.mark.parametrize("change", ["more text\n", "  ", "x"])
def test_text_behind_the_mark_counts_as_edited(project, change):
    modelcard.write(project, a_run(project, "one"), progress=PROGRESS, ended=NOW)
    path = project.path / "LORA_README.md"
    path.write_text(path.read_text() + change)
    assert modelcard.is_ours(path) == (not change.strip())
