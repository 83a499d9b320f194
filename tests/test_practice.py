"""The practice trainer: Musubi's three scripts by name, which really train, on a CPU.

Most tests start the scripts as a runner does and read what they print and leave.
"""

from __future__ import annotations

import colorsys
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from safetensors import safe_open

from musubitlx.practice import buckets, captions, codec, noise, outputs, prompts, tensors
from musubitlx.practice.config import Dataset
from musubitlx.practice.network import PracticeNetwork, Sizes
from musubitlx.practice.optimizer import practice_rate

SCRIPTS = Path(__file__).resolve().parents[1] / "musubitlx" / "practice"
LATENTS = "qwen_image_cache_latents.py"
TEXTS = "qwen_image_cache_text_encoder_outputs.py"
TRAIN = "qwen_image_train_network.py"

SIZES = [(768, 768), (640, 960), (960, 640), (1024, 768)]
SIZES += [(512, 512), (700, 900), (900, 700), (1000, 600)]
SCENES = ["on a beach", "in a forest", "on a desk", "at sunset"]
SCENES += ["in snow", "in a kitchen", "at night", "on grass"]
PROMPTS = [
    f"sks mug {scene} --w 256 --h 256 --s 20 --d {seed} --l 4.0 --fs 2.2 --n blurry"
    for scene, seed in (("on a beach", 42), ("in a forest", 43))
]
USUAL = [
    *("--dit", "none/dit.safetensors", "--vae", "none/vae.safetensors"),
    *("--text_encoder", "none/te.safetensors", "--model_version", "original", "--sdpa"),
    *("--mixed_precision", "bf16", "--timestep_sampling", "shift"),
    *("--weighting_scheme", "none", "--discrete_flow_shift", "2.2"),
    *("--optimizer_type", "AdamW", "--learning_rate", "5e-5", "--seed", "42"),
    *("--network_module", "networks.lora_qwen_image", "--network_dim", "16"),
    *("--network_alpha", "128", "--output_name", "mug"),
]


def draw_mug(number: int, size: tuple[int, int]) -> Image.Image:
    """A picture as from a camera: always the same red mug, another place, light and size."""
    rng = np.random.default_rng(number)
    width, height = size
    high = 255 * np.array(colorsys.hsv_to_rgb(number / 8, 0.5, 0.95))
    low = 255 * np.array(colorsys.hsv_to_rgb((number / 8 + 0.45) % 1, 0.6, 0.5))
    down = np.linspace(0, 1, height)[:, None, None]
    ground = np.broadcast_to((1 - down) * high + down * low, (height, width, 3)).copy()
    horizon = height * 6 // 10
    ground[horizon:] += rng.normal(0, 25, (height - horizon, width, 1))
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    pen, s = ImageDraw.Draw(image), min(size) * (0.28 + 0.05 * rng.random())
    x, y = width * (0.4 + 0.2 * rng.random()), height * (0.5 + 0.1 * rng.random())
    pen.ellipse((x - 1.1 * s, y + 0.8 * s, x + 1.1 * s, y + 1.15 * s), (40, 40, 40))
    pen.rounded_rectangle((x - 0.8 * s, y - s, x + 0.8 * s, y + s), 0.35 * s, (214, 60, 48))
    handle = (x + 0.6 * s, y - 0.5 * s, x + 1.2 * s, y + 0.4 * s)
    pen.ellipse(handle, outline=(214, 60, 48), width=int(0.16 * s))
    for eye in (x - 0.35 * s, x + 0.35 * s):
        pen.ellipse((eye - 0.2 * s, y - 0.5 * s, eye + 0.2 * s, y - 0.1 * s), (250, 245, 235))
        pen.ellipse((eye - 0.08 * s, y - 0.38 * s, eye + 0.08 * s, y - 0.22 * s), (20, 20, 30))
    mouth = (x - 0.4 * s, y - 0.1 * s, x + 0.4 * s, y + 0.5 * s)
    pen.arc(mouth, 20, 160, (255, 230, 120), int(0.1 * s))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(1.5)), np.float32)
    grainy = soft + rng.normal(0, 6, soft.shape)
    return Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8))


@dataclass
class Ended:
    """A script that has ended."""

    code: int
    text: str  # what it printed on both streams
    seconds: float

    def losses(self) -> list[float]:
        """The avr_loss after each step, as the bar showed it last."""
        pieces = re.split(r"[\r\n]", self.text)
        found = (re.search(r"(\d+)/\d+ \[.*avr_loss=([^,\]\s]+)", piece) for piece in pieces)
        steps = {int(match[1]): float(match[2]) for match in found if match}
        return [steps[step] for step in sorted(steps)]


@dataclass
class Project:
    """A folder with images, captions and what the scripts make of them."""

    folder: Path
    general: dict = field(
        default_factory=lambda: {"resolution": [1024, 1024], "enable_bucket": True}
    )
    repeats: int = 10

    def add(self, name: str, image: Image.Image, caption: str) -> None:
        image.save(self.folder / name)
        with (self.folder / "dataset.jsonl").open("a", encoding="utf-8") as lines:
            row = {"image_path": str(self.folder / name), "caption": caption}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")

    def write_config(self, *more: str) -> Path:
        rows = ["[general]", *(f"{k} = {json.dumps(v)}" for k, v in self.general.items())]
        rows += ["batch_size = 1", "[[datasets]]", f"num_repeats = {self.repeats}"]
        rows += [f"image_jsonl_file = {json.dumps(str(self.folder / 'dataset.jsonl'))}"]
        rows += [f"cache_directory = {json.dumps(str(self.folder))}", *more]
        path = self.folder / "dataset_config.toml"
        path.write_text("\n".join(rows), encoding="utf-8")
        return path

    def start(self, script: str, *options: str, **environment: str) -> subprocess.Popen:
        """Start a script as a file, from another folder, without PYTHONPATH."""
        config = ["--dataset_config", str(self.folder / "dataset_config.toml")]
        keep = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), *config, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder.parent,
            env={**keep, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **environment},
        )

    def run(self, script: str, *options: str) -> Ended:
        begun = time.monotonic()
        process = self.start(script, *options)
        text = process.communicate(timeout=200)[0].decode("utf-8")
        return Ended(process.returncode, text, time.monotonic() - begun)

    def cache(self) -> None:
        for script, options in ((LATENTS, ["--vae", "x"]), (TEXTS, ["--text_encoder", "x"])):
            ended = self.run(script, *options)
            assert ended.code == 0, ended.text

    def train(self, *options: str) -> Ended:
        """Run the training script; options given here win over the usual ones."""
        return self.run(TRAIN, *USUAL, "--output_dir", str(self.folder), *options)

    def caches(self) -> set[str]:
        return {path.name for path in self.folder.glob("*_qi*.safetensors")}


@pytest.fixture
def project(tmp_path) -> Project:
    """Two small pictures, cached."""
    made = Project(tmp_path / "small")
    made.folder.mkdir()
    for number, size in enumerate([(160, 96), (96, 96)]):
        made.add(f"pic_{number}.png", draw_mug(number, size), f"sks mug {SCENES[number]}")
    made.write_config()
    made.cache()
    return made


@dataclass
class WholeRun:
    project: Project
    stages: list[Ended]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> WholeRun:
    """Eight pictures through all three scripts, with samples at first and every epoch."""
    project = Project(tmp_path_factory.mktemp("whole") / "mug")
    project.folder.mkdir()
    for number, (size, scene) in enumerate(zip(SIZES, SCENES, strict=True)):
        project.add(f"photo {number}.jpg", draw_mug(number, size), f"sks mug {scene}")
    project.write_config()
    prompt_file = project.folder / "sample_prompts.txt"
    prompt_file.write_text("\n".join(PROMPTS), encoding="utf-8")
    stages = [
        project.run(LATENTS, "--vae", "none.safetensors"),
        project.run(TEXTS, "--text_encoder", "none.safetensors"),
        project.train(
            *("--max_train_epochs", "6", "--save_every_n_epochs", "1"),
            *("--sample_prompts", str(prompt_file), "--sample_every_n_epochs", "1"),
            "--sample_at_first",
        ),
    ]
    assert [stage.code for stage in stages] == [0, 0, 0], stages[-1].text
    return WholeRun(project, stages)


def test_eight_pictures_take_less_than_half_a_minute(whole_run):
    assert sum(stage.seconds for stage in whole_run.stages) < 30


def test_the_loss_falls_to_less_than_half(whole_run):
    losses = whole_run.stages[2].losses()
    assert len(losses) > 20
    epoch = len(losses) // 6
    assert losses[-1] < 0.5 * min(losses[0], losses[epoch - 1])


def test_samples_come_to_resemble_the_pictures(whole_run):
    folder = whole_run.project.folder
    pictures = [_thumbnail(path) for path in sorted(folder.glob("*.jpg"))]
    first, last = (
        np.mean([_distance(path, pictures) for path in folder.glob(f"sample/mug_{epoch}_*.png")])
        for epoch in ("e000000", "e000006")
    )
    assert last < 0.5 * first


def _thumbnail(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((32, 32), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def _distance(sample: Path, pictures: list[np.ndarray]) -> float:
    """Root mean square difference to the nearest picture."""
    looked_at = _thumbnail(sample)
    return min(float(np.sqrt(np.mean((looked_at - picture) ** 2))) for picture in pictures)


def test_files_have_the_names_musubi_gives(whole_run):
    folder = whole_run.project.folder
    loras = {path.name for path in folder.glob("mug*.safetensors")}
    assert loras == {"mug.safetensors", *(f"mug-{epoch:06d}.safetensors" for epoch in range(1, 6))}
    names = sorted(path.name for path in (folder / "sample").iterdir())
    pattern = r"mug_e00000[0-6]_0[01]_\d{14}_4[23]_000\.png"
    assert len(names) == 14
    assert all(re.fullmatch(pattern, name) for name in names)
    with Image.open(folder / "sample" / names[0]) as sample:
        assert sample.size == (256, 256)
    assert "photo 1_0640x0960_qi.safetensors" in whole_run.project.caches()
    assert "photo 1_qi_te.safetensors" in whole_run.project.caches()


def test_the_log_has_the_milestones_in_order(whole_run):
    milestones = [
        "its LoRA is not for Qwen-Image",
        "INFO:musubi_tuner.training.trainer_base:Load dataset config from",
        "loaded 8 images",
        "[Dataset 0]",
        "bucket: (832, 1248), count: 10",
        "total batches: 80",
        "preparing accelerator",
        "accelerator device:",
        "cache Text Encoder outputs for sample prompt:",
        "Loading VAE model",
        "Loading DiT model from",
        "create LoRA for U-Net/DiT: 9 modules.",
        "use AdamW optimizer | {}",
        "override steps. steps for 6 epochs is",
        "running training",
        "  num train items / 学習画像、動画数: 80",
        "total optimization steps / 学習ステップ数: 480",
        "steps:   0%|",
        "generating sample images at step / サンプル画像生成 ステップ: 0",
        "Denoising steps: 100%",
        "Decoding complete",
        "\nepoch 1/6",
        "avr_loss=",
        "\nsaving checkpoint: ",
        "ステップ: 80",
        "\nepoch 6/6",
        "model saved.",
    ]
    text, place = whole_run.stages[2].text, 0
    for milestone in milestones:
        found = text.find(milestone, place)
        assert found >= 0, f"{milestone!r} is missing, or comes too early"
        place = found
    assert text.endswith("\n")


def test_the_caching_scripts_print_like_musubi(whole_run):
    latents, texts = (stage.text for stage in whole_run.stages[:2])
    assert "INFO:musubi_tuner.cache_latents:Encoding dataset [0]" in latents
    assert "Saving cache for item " in latents
    assert re.search(r"\r8it \[\d\d:\d\d, ", latents)
    assert "prompt: sks mug in a forest, control images: None" in texts
    assert re.search(r"\r8it \[\d\d:\d\d, ", texts)


def test_the_lora_is_whole_and_says_what_it_is(whole_run):
    with safe_open(whole_run.project.folder / "mug.safetensors", "np") as file:
        metadata, names = file.metadata(), sorted(file.keys())
        down = file.get_tensor("lora_unet_practice_blocks_0_img_in.lora_down.weight")
        up = file.get_tensor("lora_unet_practice_blocks_3_img_out.lora_up.weight")
        assert file.get_tensor("lora_unet_practice_blocks_0_img_in.alpha") == 128
    parts = "(alpha|lora_down.weight|lora_up.weight)"
    assert all(re.fullmatch(rf"lora_unet_practice_blocks_\d_\w+\.{parts}", name) for name in names)
    assert (len(names), down.shape[0], up.shape[1]) == (27, 16, 16)
    assert np.abs(up).max() > 0
    assert metadata["ss_base_model_version"] == "qwen_image"
    assert metadata["modelspec.architecture"] == "Qwen-Image/lora"
    assert (metadata["ss_steps"], metadata["ss_epoch"], metadata["ss_seed"]) == ("480", "6", "42")
    assert json.loads(metadata["ss_datasets"])[0]["num_repeats"] == 10
    assert "not for Qwen-Image" in metadata["musubitlx_practice"]


def test_caches_are_whole_and_hold_what_musubi_notes(project):
    with safe_open(project.folder / "pic_0_0160x0096_qi.safetensors", "np") as file:
        assert file.metadata()["architecture"] == "qwen_image"
        assert (file.metadata()["width"], file.metadata()["height"]) == ("160", "96")
        assert file.get_tensor("latents_1x38x64_float32").shape == (3, 1, 38, 64)
    with safe_open(project.folder / "pic_1_qi_te.safetensors", "np") as file:
        assert file.metadata()["caption1"] == "sks mug in a forest"
        assert file.metadata()["format_version"] == "1.0.1"


def test_an_image_that_went_takes_its_caches_along(project):
    lines = (project.folder / "dataset.jsonl").read_text(encoding="utf-8").splitlines()
    (project.folder / "dataset.jsonl").write_text(lines[0] + "\n", encoding="utf-8")
    kept = project.run(LATENTS, "--keep_cache")
    assert "Keep cache file not in the dataset: " in kept.text
    assert len(project.caches()) == 4
    assert "Removed old cache file: " in project.run(LATENTS, "--skip_existing").text
    project.run(TEXTS, "--text_encoder", "x")
    assert project.caches() == {"pic_0_0160x0096_qi.safetensors", "pic_0_qi_te.safetensors"}


def test_skip_existing_goes_by_the_name_alone(project):
    old = {name: (project.folder / name).read_bytes() for name in project.caches()}
    for path in project.folder.glob("*.png"):
        Image.new("RGB", Image.open(path).size, "blue").save(path)
    assert "Saving cache" not in project.run(LATENTS, "--skip_existing").text
    assert "Item 0" not in project.run(TEXTS, "--text_encoder", "x", "--skip_existing").text
    assert old == {name: (project.folder / name).read_bytes() for name in project.caches()}
    project.run(LATENTS)
    assert old != {name: (project.folder / name).read_bytes() for name in project.caches()}


def test_training_reads_only_the_caches(project):
    for path in project.folder.glob("*.png"):
        path.unlink()
    (project.folder / "pic_1_qi_te.safetensors").unlink()
    ended = project.train("--max_train_steps", "3")
    assert ended.code == 0, ended.text
    assert "Text encoder output cache file not found: " in ended.text
    assert "num train items / 学習画像、動画数: 10" in ended.text


def test_no_caches_is_an_error(tmp_path):
    project = Project(tmp_path / "empty")
    project.folder.mkdir()
    (project.folder / "dataset.jsonl").write_text("", encoding="utf-8")
    project.write_config()
    ended = project.train()
    assert ended.code == 1
    assert ended.text.splitlines()[-1].startswith("ValueError: No training items found")


def test_caches_of_the_real_trainer_are_refused_in_a_sentence(project):
    path = project.folder / "pic_0_0160x0096_qi.safetensors"
    tensors.save(path, {"latents_1x12x20_bfloat16": np.zeros((16, 1, 12, 20))}, {}, "BF16")
    ended = project.train("--max_train_steps", "1")
    assert ended.code == 1
    assert "was not made by the practice trainer" in ended.text.splitlines()[-1]


@pytest.mark.parametrize("script", [LATENTS, TEXTS, TRAIN])
def test_an_unknown_option_is_refused_as_argparse_does(tmp_path, script):
    ended = Project(tmp_path / "none").run(script, "--text_encoder", "x", "--min_snr_gamma", "5")
    assert ended.code == 2
    assert f"\nusage: {script}" in ended.text
    assert ended.text.splitlines()[-1].startswith(f"{script}: error: unrecognized arguments")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("shuffle_caption = true", "extra keys not allowed @ data['datasets'][0]"),
        ('batch_size = "1"', "expected int for dictionary value @ data['datasets'][0]"),
        ("resolution = 1.5", "expected int for dictionary value @ data['datasets'][0]"),
    ],
)
def test_a_wrong_line_in_the_dataset_file_is_refused_as_musubi_does(tmp_path, line, message):
    project = Project(tmp_path / "wrong")
    project.folder.mkdir()
    project.write_config(line)
    for script in (LATENTS, TRAIN):
        ended = project.run(script)
        assert ended.code == 1
        last = ended.text.splitlines()[-1]
        assert last == f"voluptuous.error.MultipleInvalid: {message}['{line.split()[0]}']"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\ufeff[general]", "toml.decoder.TomlDecodeError: "),
        ('[[datasets]]\nimage_jsonl_file = "x"', "AssertionError: cache_directory is required"),
        ("[general]", "AssertionError: datasets should not be an empty iterable"),
        ('[[datasets]]\nimage_directory = "C:\\x"', "toml.decoder.TomlDecodeError: "),
    ],
)
def test_a_dataset_file_that_cannot_be_used_ends_with_musubis_error(tmp_path, content, message):
    project = Project(tmp_path / "wrong")
    project.folder.mkdir()
    (project.folder / "dataset_config.toml").write_text(content, encoding="utf-8")
    ended = project.run(TRAIN)
    assert ended.code == 1
    assert ended.text.splitlines()[-1].startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fp8_scaled"], "AssertionError: fp8_scaled requires fp8_base"),
        (["--sage_attn"], "ValueError: SageAttention doesn't support training"),
        (["--optimizer_type", ""], "AttributeError: module 'torch.optim' has no attribute ''"),
        (["--optimizer_type", "Lion"], "AttributeError: module 'torch.optim' has no attribute"),
        (["--network_module", "networks.none"], "ModuleNotFoundError: No module named"),
        (["--lr_scheduler", "nosuch"], "ValueError: nosuch is not a valid SchedulerType"),
        (["--lr_warmup_steps", "5"], "ValueError: SchedulerType.CONSTANT does not require"),
        (["--blocks_to_swap", "60"], "AssertionError: Cannot swap more than 59 blocks"),
        (["--resume", "none"], "ValueError: Tried to find none but folder does not exist"),
        (["--sample_prompts", "none.txt"], "FileNotFoundError: "),
        (["--dataset_config", "none.toml"], "ValueError: file not found"),
        (["--save_every_n_epochs", "0"], "ZeroDivisionError: "),
        (["--save_every_n_steps", "0"], "ZeroDivisionError: "),
        (["--sample_every_n_steps", "0"], "ZeroDivisionError: "),
    ],
)
def test_what_musubi_refuses_is_refused(project, options, message):
    ended = project.train("--max_train_epochs", "1", *options)
    assert ended.code == 1
    errors = re.findall(r"^\w+: .*$", ended.text, re.MULTILINE)  # a bar may follow the last one
    assert errors[-1].startswith(message)


def test_a_missing_output_folder_is_found_out_at_the_save(project):
    ended = project.run(TRAIN, *USUAL, "--max_train_steps", "2")
    assert ended.code == 1
    assert "TypeError: expected str, bytes or os.PathLike object, not NoneType" in ended.text


def test_without_attention_nothing_starts(project):
    options = [option for option in USUAL if option != "--sdpa"]
    ended = project.run(TRAIN, *options)
    assert ended.code == 1
    assert ended.text.splitlines()[-1].startswith("ValueError: either --sdpa, --flash-attn")


def test_an_unreadable_image_ends_the_run_with_its_path(project):
    (project.folder / "pic_1.png").write_bytes(b"no image")
    ended = project.run(LATENTS)
    assert ended.code == 1
    last = ended.text.splitlines()[-1]
    assert last.startswith("PIL.UnidentifiedImageError: ")
    assert "pic_1.png" in last


def test_the_same_seed_makes_the_same_lora(project):
    found = []
    for seed in ("7", "7", "8"):
        project.train("--max_train_steps", "8", "--seed", seed)
        arrays, metadata = tensors.load(project.folder / "mug.safetensors")
        found.append((metadata["sshs_model_hash"], arrays))
    assert found[0][0] == found[1][0] != found[2][0]


@pytest.mark.parametrize(
    "options",
    [
        ["--network_dim", "1"],
        ["--network_dim", "128", "--network_alpha", "1"],
        ["--learning_rate", "1e-3"],
        ["--learning_rate", "1e-5", "--optimizer_type", "Adafactor"],
        ["--optimizer_type", "AdamW8bit", "--optimizer_args", "weight_decay=0.1"],
        ["--optimizer_type", "bitsandbytes.optim.PagedAdamW8bit"],
        ["--lr_scheduler", "cosine", "--lr_warmup_steps", "0.1"],
        ["--timestep_sampling", "qwen_shift", "--gradient_accumulation_steps", "3"],
        ["--timestep_sampling", "sigma", "--max_grad_norm", "0"],
        ["--min_timestep", "200", "--max_timestep", "800"],
    ],
)
def test_other_settings_train_as_well(project, options):
    ended = project.train("--max_train_steps", "120", *options)
    assert ended.code == 0, ended.text
    losses = ended.losses()
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]


def test_far_too_much_of_everything_still_ends_with_numbers(project):
    options = ["--learning_rate", "1e-3", "--network_dim", "1", "--network_alpha", "256"]
    ended = project.train("--max_train_steps", "120", *options)
    assert ended.code == 0, ended.text
    assert all(math.isfinite(loss) for loss in ended.losses())


@pytest.mark.parametrize("size", [(900, 40), (33, 700), (17, 17), (3000, 2000)])
def test_one_picture_of_any_shape_and_name_is_enough(tmp_path, size):
    project = Project(tmp_path / "eins é 日本", repeats=20)
    project.folder.mkdir()
    project.add("Bild ü_1 (日本) 'x'.png", draw_mug(1, size).convert("RGBA"), "鈴木さんの写真")
    project.write_config()
    project.cache()
    assert f"Bild ü_1 (日本) 'x'_{size[0]:04d}x{size[1]:04d}_qi.safetensors" in project.caches()
    ended = project.train("--max_train_epochs", "3")
    assert ended.code == 0, ended.text
    assert ended.losses()[-1] < 0.5 * ended.losses()[0]


def test_a_folder_of_images_and_captions_is_read_too(tmp_path):
    project = Project(tmp_path / "folder")
    project.folder.mkdir()
    for name in ("b.png", "a.jpg", "alone.png", "not.gif"):
        draw_mug(1, (64, 64)).save(project.folder / name)
    for stem in ("a", "b", "not"):
        (project.folder / f"{stem}.txt").write_text(f" sks {stem}\n", encoding="utf-8")
    place = json.dumps(str(project.folder))
    text = f'[general]\ncaption_extension = ".txt"\n[[datasets]]\nimage_directory = {place}\n'
    (project.folder / "dataset_config.toml").write_text(text, encoding="utf-8")
    ended = project.run(TEXTS, "--text_encoder", "x")
    assert "found 2 images" in ended.text
    assert ended.text.index("prompt: sks a,") < ended.text.index("prompt: sks b,")
    assert project.run(LATENTS).code == 0
    assert project.train("--max_train_steps", "2").code == 0


def test_steps_name_samples_checkpoints_and_states(project):
    prompt_file = project.folder / "prompts.txt"
    prompt_file.write_text("# no prompt\n\nsks mug --w 64 --h 40 --s 3\n", encoding="utf-8")
    ended = project.train(
        *("--max_train_epochs", "1", "--save_every_n_steps", "5", "--save_last_n_steps", "5"),
        *("--sample_prompts", str(prompt_file), "--sample_every_n_steps", "10"),
        *("--save_state", "--save_precision", "bf16"),
    )
    assert ended.code == 0, ended.text
    names = {path.name for path in project.folder.glob("mug*")}
    assert names == {
        *("mug-step00000015.safetensors", "mug-step00000015-state"),
        *("mug-step00000020.safetensors", "mug-step00000020-state"),
        *("mug.safetensors", "mug-state"),
    }
    states = {path.name for path in (project.folder / "mug-state").iterdir()}
    assert states == {"model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl"}
    samples = sorted(path.name for path in (project.folder / "sample").iterdir())
    at_steps = [r"mug_000010_00_\d{14}_000.png", r"mug_000020_00_\d{14}_000.png"]
    assert len(samples) == 3  # an epoch that ends on such a step makes a second set
    for pattern, name in zip([*at_steps, r"mug_e000001_00_\d{14}_000.png"], samples, strict=True):
        assert re.fullmatch(pattern, name)
    with safe_open(project.folder / "mug.safetensors", "np") as file:
        part = file.get_slice("lora_unet_practice_blocks_0_img_in.lora_down.weight")
        assert part.get_dtype() == "BF16"
    with Image.open(project.folder / "sample" / samples[0]) as sample:
        assert sample.size == (64, 32)


def test_resume_goes_on_where_the_state_was(project):
    first = project.train("--max_train_steps", "60", "--save_state")
    state = str(project.folder / "mug-state")
    second = project.train("--max_train_steps", "20", "--resume", state)
    assert "resume training from local state: " in second.text
    assert "total optimization steps / 学習ステップ数: 20" in second.text
    assert second.losses()[0] < 0.7 * first.losses()[0]
    weights = str(project.folder / "mug.safetensors")
    third = project.train("--max_train_steps", "1", "--network_weights", weights)
    assert third.losses()[0] < 0.7 * first.losses()[0]


def test_options_can_come_from_a_file(project):
    config = project.folder / "options.toml"
    config.write_text("[a]\nmax_train_steps = 3\nseed = 5\n", encoding="utf-8")
    options = ["--config_file", str(config.with_suffix("")), "--seed", "6"]
    assert "/ 学習ステップ数: 3" in project.train(*options).text
    assert tensors.load(project.folder / "mug.safetensors")[1]["ss_seed"] == "6"
    missing = project.train("--config_file", "none")
    assert (missing.code, missing.text.splitlines()[-1][-20:]) == (1, "none.toml not found.")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_a_slow_run_prints_as_it_goes_and_ends_when_asked(project):
    options = [*USUAL, "--output_dir", str(project.folder)]
    process = project.start(TRAIN, *options, MUSUBITLX_PRACTICE_STEP_DELAY="0.3")
    seen = b""
    while b"2/1600" not in seen:
        piece = os.read(process.stdout.fileno(), 4096)
        assert piece, seen.decode()
        seen += piece
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == -signal.SIGTERM
    assert time.monotonic() - asked < 2
    assert not list(project.folder.glob("mug*"))


def test_the_trainer_stays_light():
    program = (
        "import sys, musubitlx.practice.training, musubitlx.practice.caching;"
        "sys.exit(bool({'flask', 'torch', 'transformers'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=SCRIPTS.parents[1])


def test_buckets_are_musubis():
    assert [len(buckets.bucket_sizes((side, side))) for side in (512, 1024, 1328)] == [33, 65, 85]
    assert buckets.bucket_sizes((512, 512))[0] == (256, 1024)

    def bucket(size, resolution, **settings):
        dataset = Dataset(resolution=resolution, enable_bucket=True, **settings)
        return buckets.choose_bucket(size, dataset)

    assert bucket((500, 500), (1000, 1000)) == (992, 1008)
    assert bucket((500, 500), (960, 544)) == (720, 720)
    assert bucket((320, 192), (128, 128)) == (160, 96)
    assert bucket((192, 320), (128, 128)) == (96, 160)
    assert bucket((120, 90), (128, 128), bucket_no_upscale=True) == (112, 80)
    assert buckets.choose_bucket((120, 90), Dataset(resolution=(128, 64))) == (128, 64)
    with pytest.raises(ZeroDivisionError):
        buckets.bucket_sizes((31, 31))


def test_prompt_lines_are_read_as_musubi_reads_them():
    line = "a mug --w 530 --H 300 --s 0 --d 42 --l 4,5 --fs 2.2 --n blurry, bad --steps 20 --d -1"
    prompt = prompts.make_prompt(3, line)
    assert (prompt.prompt, prompt.width, prompt.height, prompt.index) == ("a mug", 528, 288, 3)
    assert (prompt.sample_steps, prompt.seed, prompt.cfg_scale) == (1, 42, 4.0)
    assert (prompt.discrete_flow_shift, prompt.negative_prompt) == (2.2, "blurry, bad")
    usual = prompts.make_prompt(0, "a mug")
    assert (usual.width, usual.sample_steps, usual.seed, usual.cfg_scale) == (256, 20, None, 4.0)
    assert (usual.discrete_flow_shift, usual.negative_prompt) == (14.5, " ")
    assert prompts.parse_line("n scale train")["negative_prompt"] == "scale train"


def test_prompt_files_of_all_three_kinds(tmp_path):
    contents = {
        "p.txt": "#no\n\na --d 1\nb\n",
        "p.json": '["a --d 1", {"prompt": "b"}]',
        "p.toml": '[prompt]\nseed = 1\n[[prompt.subset]]\nprompt = "a"\n'
        '[[prompt.subset]]\nprompt = "b"\n',
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        found = prompts.load_prompts(str(tmp_path / name))
        assert [(p.index, p.prompt) for p in found] == [(0, "a"), (1, "b")]
        assert found[0].seed == 1
    with pytest.raises(ValueError, match="--sample_prompts takes"):
        prompts.load_prompts("prompts.md")


def test_gradients_are_those_of_the_loss():
    rng = np.random.default_rng(0)
    network = PracticeNetwork(rank=4, alpha=8, seed=1)
    network.parameters += 0.03 * rng.standard_normal(network.parameters.shape, np.float32)
    sizes = Sizes([(64, 48), (30, 64)])
    noisy, goal = (rng.standard_normal((2, codec.SIZE), np.float32) * sizes.mask for _ in "ab")
    times = np.array([0.4, 0.95], np.float32)
    caption = np.stack([captions.embed("a mug"), captions.embed("")])

    def error() -> np.ndarray:
        return (network.predict(noisy, times, caption, sizes) - goal) * sizes.mask

    network.backward(2 * error())
    gradient = network.gradients.copy()
    direction = gradient / np.linalg.norm(gradient)
    ends = []
    for side in (3e-3, -6e-3):
        network.parameters += np.float32(side) * direction
        ends.append(float(np.sum(error().astype(np.float64) ** 2)))
    assert (ends[0] - ends[1]) / 6e-3 == pytest.approx(np.linalg.norm(gradient), rel=0.01)


def test_the_codec_gives_back_grey_pictures_and_keeps_noise_white():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.uniform(-1, 1, (48, 64, 1)).astype(np.float32), 3, axis=2)
    assert codec.decode(codec.encode(grey), 64, 48) == pytest.approx(grey, abs=1e-5)
    assert codec.practice_size(1328, 784) == (64, 38)
    noisy = codec.encode(rng.standard_normal((64, 64, 3)).astype(np.float32))
    assert noisy.std() == pytest.approx(1, abs=0.02)


def test_captions_that_share_words_lie_near_each_other():
    beach, forest, other = map(captions.embed, ("sks mug, beach", "SKS mug in a forest", "鈴木"))
    assert beach @ forest > 0.3 > abs(float(beach @ other))
    assert not captions.embed(" ").any()


def test_noise_levels_follow_the_shift():
    class Args:
        timestep_sampling, sigmoid_scale = "shift", 1.0
        min_timestep = max_timestep = None

    means = []
    for shift in (1.0, 2.2, 6.0):
        Args.discrete_flow_shift = shift
        times = noise.draw_times(Args, np.random.default_rng(0), 500)
        assert times.shape == (500 * noise.DRAWS,)
        means.append(times.mean())
    assert means[0] == pytest.approx(0.5, abs=0.01)
    assert means[0] < means[1] < means[2]


def test_a_usual_learning_rate_becomes_one_for_the_practice_network():
    assert practice_rate(5e-5) == pytest.approx(5e-4)
    assert practice_rate(1e-5) < practice_rate(5e-5) < practice_rate(1e-3) < 3e-3
    assert practice_rate(0) == 0


def test_which_old_files_go():
    assert outputs.old_epoch(5, 1, 2) == 3
    assert outputs.old_epoch(2, 1, 2) is None
    assert outputs.old_step(50, 10, 30) == 10
    assert outputs.old_step(30, 10, 30) is None
    assert outputs.old_step(50, 10, None) is None


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_tensor_files_are_read_back_and_by_others(tmp_path, dtype):
    array = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    path = tmp_path / "x.safetensors"
    tensors.save(path, {"a": array, "s": np.array(8.0)}, {"k": "ü"}, dtype)
    arrays, metadata = tensors.load(path)
    assert metadata == {"k": "ü"}
    assert arrays["a"] == pytest.approx(array, rel=0.005)
    assert arrays["s"] == 8
    with safe_open(path, "np") as file:
        assert file.metadata() == {"k": "ü"}
        assert file.get_slice("a").get_dtype() == dtype


def test_a_damaged_tensor_file_is_a_value_error(tmp_path):
    path = tmp_path / "x.safetensors"
    for content in (b"", b"\xff" * 20, b"\x02" + b"\0" * 7 + b"[]"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a readable safetensors file"):
            tensors.load(path)
