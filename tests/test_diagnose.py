"""Failed logs are told apart, each with a cause and a remedy."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from musubitlx import diagnose
from musubitlx.diagnose import Diagnosis, last_error

FRAMES = """Traceback (most recent call last):
  File "<musubi>/qwen_image_train_network.py", line 9, in <module>
    main()
"""


def trace(error: str, frames: str = "") -> str:
    """A traceback that ends in this error, with these source lines in it."""
    return f"{FRAMES}    {frames}\n{error}\n"


def code_of(tail: str, exit_code: int | None = 1) -> str | None:
    found = diagnose.diagnose(tail, exit_code=exit_code, stage="train")
    return found and found.code


# -- the last error of a log ----------------------------------------------------------------------


def test_the_error_below_the_last_traceback_is_it():
    assert last_error(trace("ValueError: first") + "epoch 1/2\n" + trace("KeyError: 'b'")) == (
        "KeyError: 'b'"
    )


def test_a_traceback_glued_to_a_bar_and_a_bar_behind_the_error():
    bar = "\rsteps:  33%|███▎      | 2/6 [00:04<00:08,  2.19s/it, avr_loss=2.29]"
    assert last_error(f"{bar}{trace('OSError: it')}{bar}\n") == "OSError: it"
    assert last_error(f"{bar}{trace('OSError: it')}\n{bar}\n") == "OSError: it"


def test_an_error_of_several_lines_is_read_to_its_end():
    text = "RuntimeError: Error(s) in loading:\n\tMissing key(s): a\n\tUnexpected key(s): b"
    assert last_error(trace(text) + "INFO:musubi_tuner.x:next\n") == text
    assert last_error(trace(text) + trace("ValueError: after")) == "ValueError: after"


def test_the_launchers_own_error_does_not_hide_that_of_its_child():
    launcher = trace("subprocess.CalledProcessError: Command '['python']' returned 1.")
    assert last_error(trace("ValueError: cause") + launcher) == "ValueError: cause"
    assert last_error(launcher).startswith("subprocess.CalledProcessError")


def test_an_error_without_message_and_colours_are_read():
    assert last_error(trace("KeyboardInterrupt")) == "KeyboardInterrupt"
    assert last_error(trace("\x1b[31mValueError: red\x1b[0m")) == "ValueError: red"
    assert last_error(trace("a.b.CustomError: x").replace("\n", "\r\n")) == "a.b.CustomError: x"


def test_an_ignored_exception_is_ignored():
    ignored = "Exception ignored in: <function Loader.__del__ at 0x7f>\n" + trace("OSError: late")
    assert last_error(trace("ValueError: cause") + ignored) == "ValueError: cause"
    assert last_error(ignored.replace("OSError: late", "late")) is None


def test_a_usage_error_has_no_traceback():
    usage = "usage: t.py [-h]\n         [--dit DIT]\nt.py: error: unrecognized arguments: --x\n"
    assert last_error(usage) == "t.py: error: unrecognized arguments: --x"


def test_a_tail_that_begins_within_the_traceback_still_has_its_error():
    tail = '  File "x.py", line 1, in f\n    g()\ntorch.OutOfMemoryError: CUDA out of memory.\n'
    assert last_error(tail) == "torch.OutOfMemoryError: CUDA out of memory."


@pytest.mark.parametrize("tail", ["", "epoch 1/2\nall well\n", diagnose.TRACEBACK])
def test_a_log_without_error_has_none(tail):
    assert last_error(tail) is None


def test_a_bar_folded_into_a_traceback_is_not_taken_for_the_error():
    bar = "steps:  33%|###| 2/6 [00:04<00:08,  2.19s/it, avr_loss=2.29]\n"
    folded = trace("OSError: it").replace("  File", f"{bar}  File")
    assert last_error(folded + bar) == "OSError: it"


# -- the lines that tell --------------------------------------------------------------------------


def lines(tail: str, exit_code: int = 1) -> list[str]:
    return diagnose.diagnose(tail, exit_code=exit_code, stage="train").lines


def test_the_lines_that_tell_are_the_error_its_frames_and_what_was_said_before():
    frames = "".join(
        f'  File "{place}", line {number}, in f\n    call({number})\n    ^^^^\n'
        for number, place in enumerate(
            ["a.py", "b.py", "c.py", "/venv/site-packages/torch/x.py", "/venv/site-packages/y.py"]
        )
    )
    tail = f"INFO:old\nepoch 1/2\n\n{diagnose.TRACEBACK}\n{frames}ValueError: why\nand how\n"
    assert lines(tail) == [
        *("INFO:old", "epoch 1/2"),
        *('  File "b.py", line 1, in f', "    call(1)"),
        *('  File "c.py", line 2, in f', "    call(2)"),
        *('  File "/venv/site-packages/y.py", line 4, in f', "    call(4)"),
        *("ValueError: why", "and how"),
    ]


def test_of_a_bar_its_last_state_is_told_and_long_lines_are_cut():
    bars = "".join(f"steps:  {n}%|##| {n}/6 [00:04<00:08]\r" for n in range(5))
    told = lines(f"epoch 1/2\n{bars}{trace('ValueError: ' + 'x' * 9000)}")
    assert told[:2] == ["epoch 1/2", "steps:  4%|##| 4/6 [00:04<00:08]"]
    assert len(told[-1]) == diagnose.TOLD_CHARACTERS and told[-1].endswith("…")


def test_without_an_error_the_last_words_are_told():
    assert lines("one\n=== Stage 1 ===\n$ python x\ntwo\n\n", exit_code=-9) == ["one", "two"]


# -- what is known --------------------------------------------------------------------------------

NO_PATH = "TypeError: expected str, bytes or os.PathLike object, not NoneType"
EMPTY = "ValueError: No training items found in the dataset. Please ensure that"
USAGE = "usage: qwen_image_train_network.py [-h]\nqwen_image_train_network.py: error: "
KNOWN = [
    ("gpu_out_of_memory", trace("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate")),
    ("gpu_out_of_memory", trace("torch.AcceleratorError: CUDA error: out of memory")),
    ("out_of_ram", trace("MemoryError")),
    ("out_of_ram", trace("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried")),
    ("out_of_ram", trace("OSError: [WinError 1455] The paging file is too small")),
    ("out_of_ram", trace("OSError: [Errno 12] Cannot allocate memory")),
    (
        "shared_memory_full",
        trace("RuntimeError: DataLoader worker (pid 5) is killed by signal: Bus error."),
    ),
    ("workers_died", trace("RuntimeError: DataLoader worker (pid(s) 5, 6) exited unexpectedly")),
    ("disk_full", trace("OSError: [Errno 28] No space left on device: 'a.safetensors'")),
    ("disk_full", trace("safetensors.SafetensorError: IO: No space left on device (os error 28)")),
    ("nan_loss", trace("ValueError: the loss is nan")),
    ("gpu_driver_too_old", trace("RuntimeError: The NVIDIA driver on your system is too old")),
    ("gpu_driver_too_old", trace("RuntimeError: CUDA driver version is insufficient for CUDA r")),
    ("no_gpu", trace("RuntimeError: Found no NVIDIA driver on your system.")),
    ("no_gpu", trace("AssertionError: Torch not compiled with CUDA enabled")),
    ("gpu_not_supported", trace("RuntimeError: CUDA error: no kernel image is available for ex")),
    ("gpu_busy", trace("RuntimeError: CUDA error: all CUDA-capable device(s) is/are busy or un")),
    ("gpu_fault", trace("RuntimeError: CUDA error: an illegal memory access was encountered")),
    ("musubi_not_installed", trace("ModuleNotFoundError: No module named 'musubi_tuner'")),
    (
        "musubi_not_installed",
        "python: can't open file '/m/qwen_image_cache_latents.py': [Errno 2] No\n",
    ),
    ("bitsandbytes_missing", trace("ImportError: No bitsandbytes / bitsandbytesがインストール")),
    ("bad_network_module", trace("ModuleNotFoundError: No module named 'networks.none'")),
    ("attention_missing", trace("ModuleNotFoundError: No module named 'flash_attn'")),
    ("module_missing", trace("ModuleNotFoundError: No module named 'voluptuous'")),
    ("tokenizer_offline", trace(NO_PATH, "with open(vocab_file, encoding='utf-8') as handle:")),
    ("tokenizer_offline", trace("OSError: We couldn't connect to 'https://huggingface.co' to")),
    ("no_output_dir", trace(NO_PATH, "os.makedirs(args.output_dir, exist_ok=True)")),
    (
        "no_output_name",
        trace(
            "TypeError: unsupported operand type(s) for +: 'NoneType' and 'str'",
            "ckpt_name = last(args.output_name)",
        ),
    ),
    (
        "wrong_model_file",
        trace("RuntimeError: Error in loading state_dict for AutoencoderKLQwenImage:"),
    ),
    (
        "wrong_model_file",
        trace("RuntimeError: Error in loading state_dict for QwenImageTransformer2DModel:"),
    ),
    ("wrong_model_file", trace("RuntimeError: Error in loading state_dict for Qwen2_5_VLFor:")),
    ("wrong_model_file", '", ' + '"decoder.conv_in.weight", ' * 200 + '"x". \n'),
    ("wrong_weights", trace("RuntimeError: Error in loading state_dict for LoRANetwork:")),
    ("broken_model_file", trace("SafetensorError: Error while deserializing header: X")),
    (
        "broken_model_file",
        trace("json.decoder.JSONDecodeError: Expecting value", 'File "a/safetensors_utils.py"'),
    ),
    (
        "no_caption_extension",
        trace(
            "FileNotFoundError: [Errno 2] No such file or directory: ''",
            "with open(caption_path) as f:",
        ),
    ),
    (
        "missing_model_file",
        trace("FileNotFoundError: [Errno 2] No such file or directory: 'm/dit.safetensors'"),
    ),
    ("missing_file", trace("FileNotFoundError: [Errno 2] No such file or directory: 'data/p.txt'")),
    (
        "missing_file",
        trace("ValueError: file not found / ファイルが見つかりません: data/none.toml"),
    ),
    ("missing_state", trace("ValueError: Tried to find out/a-state but folder does not exist")),
    ("no_permission", trace("PermissionError: [Errno 13] Permission denied: 'out/a.safetensors'")),
    ("too_many_files", trace("OSError: [Errno 24] Too many open files: 'a'")),
    ("unreadable_image", trace("PIL.UnidentifiedImageError: cannot identify image file 'o/b.png'")),
    ("unreadable_image", trace("OSError: image file is truncated (4 bytes not processed)")),
    (
        "image_too_small",
        trace("ValueError: Image or video size too small: a and 0 more, size: (8, 8)"),
    ),
    (
        "caption_not_utf8",
        trace(
            "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xfc",
            "_, caption = self.get_caption(idx)",
        ),
    ),
    ("brackets_in_path", '  cache_directory: "data/ca[1]"\n' + trace(EMPTY)),
    ("no_training_items", '  cache_directory: "data/cache1"\n' + trace(EMPTY)),
    ("bad_dataset_file", trace("toml.decoder.TomlDecodeError: Empty value is invalid (line 4)")),
    ("bad_dataset_file", trace("voluptuous.error.MultipleInvalid: extra keys not allowed @ data")),
    ("unknown_option", USAGE + "unrecognized arguments: --no_such_flag\n"),
    ("bad_option", USAGE + "argument --mixed_precision: invalid choice: 'fp32'\n"),
    ("bad_option", USAGE + "argument --seed: expected one argument\n"),
    ("bad_option", USAGE + "the following arguments are required: --dataset_config\n"),
    ("bad_optimizer", trace("AttributeError: module 'torch.optim' has no attribute ''")),
    (
        "bad_optimizer",
        trace(
            "AttributeError: module 'torch.optim' has no attribute 'Nope'", "= self.get_optimizer("
        ),
    ),
    ("bad_scheduler", trace("ValueError: nosuch is not a valid SchedulerType, please select")),
    (
        "bad_scheduler",
        trace("ValueError: SchedulerType.CONSTANT does not require `num_warmup_steps`."),
    ),
    (
        "too_many_blocks_swapped",
        trace("AssertionError: Cannot swap more than 59 blocks. Requested 60 blocks to swap."),
    ),
    (
        "fp8_scaled_without_base",
        trace("AssertionError: fp8_scaled requires fp8_base / fp8_scaledは"),
    ),
    (
        "no_attention",
        trace("ValueError: either --sdpa, --flash-attn, --xformers must be specified"),
    ),
    ("workers_zero", trace("ValueError: persistent_workers option needs num_workers > 0")),
    ("dim_from_weights", trace("TypeError: expected str, bytes or os.PathLike object, not bool")),
    ("every_zero", trace("ZeroDivisionError: integer modulo by zero")),
    (
        "unicode_output",
        trace("UnicodeEncodeError: 'charmap' codec can't encode characters in 40-53"),
    ),
    ("interrupted", trace("KeyboardInterrupt")),
    ("killed", trace("subprocess.CalledProcessError: Command 'p' died with <Signals.SIGKILL: 9>.")),
    ("no_images", "INFO:musubi_tuner.dataset.datasources:found 0 images\n\r0it [00:00, ?it/s]\n"),
    ("nan_loss", "steps:  50%|#####     | 1/2 [00:04<00:08,  2.19s/it, avr_loss=nan]\n"),
]


@pytest.mark.parametrize(("code", "tail"), KNOWN, ids=range(len(KNOWN)))
def test_a_known_error_has_its_name_a_cause_and_a_remedy(code, tail):
    found = diagnose.diagnose("epoch 1/2\n" + tail, exit_code=1, stage="train")
    assert found.code == code
    assert_good(found)


def assert_good(found: Diagnosis) -> None:
    """What is said is sentences, with every name filled in."""
    for text in (found.cause, found.remedy):
        assert text[0].isupper() or text.startswith("--"), text
        assert text.rstrip(".)")[-1].isalnum() or text[-1] in "?].", text
        assert "{" not in text and "  " not in text
    assert len(found.evidence) <= diagnose.MAX_EVIDENCE


@pytest.mark.parametrize(
    ("tail", "name"),
    [
        (
            trace("FileNotFoundError: [Errno 2] No such file or directory: 'm/a b.safetensors'"),
            "m/a b.s",
        ),
        (
            trace(r"FileNotFoundError: [Errno 2] No such file or directory: 'C:\\x\\a.txt'"),
            r"C:\x\a.txt",
        ),
        (trace("PIL.UnidentifiedImageError: cannot identify image file 'o/b.png'"), "o/b.png"),
        (USAGE + "unrecognized arguments: --no_such_flag 7\n", "--no_such_flag 7"),
        (USAGE + "argument --mixed_precision: invalid choice: 'fp32'\n", "--mixed_precision"),
        (trace("ModuleNotFoundError: No module named 'a.b'"), "a.b"),
        (
            trace("AssertionError: Cannot swap more than 59 blocks. Requested 60 blocks to swap."),
            "60",
        ),
    ],
)
def test_the_cause_names_what_is_at_fault(tail, name):
    assert name in diagnose.diagnose(tail, exit_code=1, stage="train").cause


@pytest.mark.parametrize(
    ("exit_code", "code"),
    [
        *((-9, "killed"), (137, "killed"), (-15, "terminated"), (-2, "interrupted")),
        *((-11, "crashed"), (0xC0000005, "crashed"), (1, None), (0, None), (None, None)),
    ],
)
def test_a_silent_end_is_told_from_the_exit_code(exit_code, code):
    assert code_of("steps:  50%|#####     | 1/2 [00:04<00:08]\n", exit_code) == code


def test_an_unknown_error_is_quoted_and_no_error_is_none():
    tail = trace("some.NewError: nobody has seen " + "this " * 200)
    found = diagnose.diagnose(tail, exit_code=1, stage="text_encoder")
    assert found.code == "unknown"
    assert found.cause.startswith("Text encoder caching ended with: some.NewError: nobody has seen")
    assert len(found.evidence) == diagnose.MAX_EVIDENCE
    assert diagnose.diagnose("all well\n", exit_code=1, stage="other") is None


def test_what_looks_alike_is_not_mixed_up():
    assert code_of(trace("AttributeError: module 'numpy' has no attribute 'x'")) == "unknown"
    assert code_of("prepare optimizer\n" + trace(NO_PATH)) == "unknown"
    settings = '  caption_extension: ".txt"\n'
    assert code_of(settings + trace("UnicodeDecodeError: 'utf-8' codec")) == "unknown"
    triton = trace("triton.OutOfResources: out of resource: shared memory, Required: 9")
    assert code_of(triton) == "unknown"
    assert code_of("1/2 [00:04<00:08, avr_loss=nan]\n" + trace("ValueError: else")) == "unknown"
    two_sets = "datasources:found 0 images\nINFO:musubi_tuner.dataset.datasources:found 4 images\n"
    assert code_of(two_sets) is None


@pytest.mark.parametrize(
    "piece",
    [
        *("steps:  50%|#####     | 1/2 [00:04<00:08]\r", "ERROR:", "python", "x: error: y\n"),
        *(trace("ValueError: nan loss"), diagnose.TRACEBACK, '"a.b", ', "huggingface.co", "[ "),
    ],
)
def test_a_tail_full_of_anything_is_read_quickly(piece):
    tail = "Traceback (most recent call last):\n  f\nValueError: " + piece * (65_536 // len(piece))
    started = time.perf_counter()
    code_of(tail)
    code_of(piece * (65_536 // len(piece)))
    assert time.perf_counter() - started < 5  # some 0.1 s


# -- the real program's logs ----------------------------------------------------------------------

BESIDE = Path(__file__).parents[2] / "shared/musubi/logs"
LOGS = Path(os.environ.get("MUSUBI_LOGS") or BESIDE)
REAL = {
    "latents_error_corrupt_image": "unreadable_image",
    "latents_error_missing_vae": "missing_model_file",
    "latents_error_no_caption_extension": "no_caption_extension",
    "latents_error_sigterm": "terminated",
    "latents_error_toml_syntax": "bad_dataset_file",
    "latents_error_unknown_toml_key": "bad_dataset_file",
    "latents_error_wrong_file_as_vae": "wrong_model_file",
    "latents_missing_image_dir": "no_images",
    "latents_no_captions": "no_images",
    "textencoder_error_missing_file": "missing_model_file",
    "textencoder_error_tokenizer_offline": "tokenizer_offline",
    "train_error_accelerate_launch": "missing_model_file",
    "train_error_accelerate_sigterm": "terminated",
    "train_error_bad_choice": "bad_option",
    "train_error_bad_dataset_path": "missing_file",
    "train_error_bad_network_module": "bad_network_module",
    "train_error_bad_optimizer": "bad_optimizer",
    "train_error_bad_scheduler": "bad_scheduler",
    "train_error_blocks_to_swap_too_many": "too_many_blocks_swapped",
    "train_error_brackets_in_cache_dir": "brackets_in_path",
    "train_error_constant_with_warmup_steps": "bad_scheduler",
    "train_error_cp1252_stdout": "unicode_output",
    "train_error_default_optimizer": "bad_optimizer",
    "train_error_dim_from_weights": "dim_from_weights",
    "train_error_fp8_scaled_without_base": "fp8_scaled_without_base",
    "train_error_missing_dit": "missing_model_file",
    "train_error_missing_prompts_file": "missing_file",
    "train_error_missing_text_encoder_for_sampling": "missing_model_file",
    "train_error_no_attention": "no_attention",
    "train_error_no_cache": "no_training_items",
    "train_error_no_output_dir": "no_output_dir",
    "train_error_no_output_name": "no_output_name",
    "train_error_oom": "gpu_out_of_memory",
    "train_error_optimizer_8bit_missing": "bitsandbytes_missing",
    "train_error_persistent_workers_zero": "workers_zero",
    "train_error_resume_missing": "missing_state",
    "train_error_sigint": "interrupted",
    "train_error_sigterm": "terminated",
    "train_error_unknown_flag": "unknown_option",
}
EXIT_CODES = {"sigterm": -15, "sigint": -2, "unknown_flag": 2, "bad_choice": 2}
has_logs = pytest.mark.skipif(
    not LOGS.is_dir(), reason="no logs of the real Musubi Tuner: MUSUBI_LOGS names their folder"
)


@has_logs
@pytest.mark.parametrize("name", REAL)
def test_the_real_programs_errors_are_known(name):
    exit_code = next((code for word, code in EXIT_CODES.items() if word in name), 1)
    log = (LOGS / f"{name}.log").read_bytes().decode()
    for tail in (log, log[-65_536:], log[-4_096:]):
        found = diagnose.diagnose(tail, exit_code=exit_code, stage="train")
        assert found.code == REAL[name]
        assert_good(found)


@has_logs
def test_every_real_error_is_in_the_table_and_no_good_log_is_called_an_error():
    names = {path.stem for path in LOGS.glob("*.log")}
    assert {name for name in names if "_error_" in name} <= set(REAL)
    for name in names - set(REAL):
        log = (LOGS / f"{name}.log").read_bytes().decode()
        assert diagnose.diagnose(log, exit_code=0, stage="train") is None, name
