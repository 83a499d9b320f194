"""What Musubi Tuner 0.3.4 and what it stands on say when they fail: data, read by diagnose.py.

Each row has a cause and a remedy in the words of the page. A new error is a new row.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One known error: told by its text, and where that is not enough by the lines before it.

    Named groups of `error` fill in `cause` and `remedy`. `context` is looked for in the
    whole tail.
    """

    code: str
    error: str
    cause: str
    remedy: str
    context: str = ""


STAGES = {
    "latents": "Latent caching",
    "text_encoder": "Text encoder caching",
    "train": "Training",
    "fetch": "The download",
    "caption": "Captioning",
}
UNKNOWN_REMEDY = "The lines above it in the log tell where it happened."
GET_MODELS = "Look under Model files which file is missing or broken."
MEND_FLAGS = "Change or remove it under Advanced trainer flags."
OUR_BUG = "This should not happen with what the page starts: please report it with the log."

CRASHED = (
    "crashed",
    "The program crashed inside a library, without a word.",
    "Start again. If it comes back: update the GPU's driver, try --sdpa as attention, "
    "and test the machine's RAM.",
)
KILLED = (
    "killed",
    "The system killed it, most often because the RAM (in a container: its limit) was full.",
    "Close other programs, choose a VRAM profile that swaps fewer blocks, add swap space, or give "
    "the container more memory.",
)
TERMINATED = (
    "terminated",
    "Somebody or the system asked it to end (the terminate signal).",
    "Start again: nothing was saved after the last checkpoint.",
)

ERRORS = (
    # -- memory and disk
    Row(
        "gpu_out_of_memory",
        r"OutOfMemoryError|(?:CUDA|HIP) out of memory|(?:CUDA|HIP) error: out of memory|"
        r"CUBLAS_STATUS_ALLOC_FAILED",
        "The GPU's memory (VRAM) was not enough.",
        "Choose a smaller VRAM profile (it swaps more blocks to RAM), a lower resolution or batch "
        "size 1, switch samples off, and close other programs that use the GPU.",
    ),
    Row(
        "out_of_ram",
        r"MemoryError|Unable to allocate|you tried to allocate|DefaultCPUAllocator|bad_alloc|"
        r"Cannot allocate memory|paging file is too small|WinError 1455",
        "The computer's memory (RAM) was not enough.",
        "Close other programs, choose a VRAM profile that swaps fewer blocks, or enlarge the swap "
        "(on Windows the paging file).",
    ),
    Row(
        "shared_memory_full",
        r"shared memory \(shm\)|/dev/shm|unable to \w+ .*shared memory|Bus error",
        "The shared memory of this container was not enough for the data loader.",
        "Start the container with more of it (--shm-size 8g or --ipc=host), or add "
        "--max_data_loader_n_workers 0 under Advanced trainer flags.",
    ),
    Row(
        "disk_full",
        r"No space left on device|Errno 28\b|WinError 112\b|Disk quota exceeded",
        "The disk is full.",
        "Make room: a LoRA and its states need some GB, the model files 60 GB. Then start again.",
    ),
    Row(
        "workers_died",
        r"DataLoader worker \(pid.*(exited unexpectedly|is killed by signal)",
        "A data loader process was ended from outside, most often for lack of RAM.",
        "Close other programs, or add --max_data_loader_n_workers 1 under Advanced trainer flags.",
    ),
    Row(
        "nan_loss",
        r"(?i)\bloss\b.*\bnan\b|\bnan\b.*\bloss\b|found inf or nan|contains nan",
        "The loss became NaN: training has run away and its LoRA is worthless.",
        "Halve the learning rate, use bf16 rather than fp16, and look for broken images.",
    ),
    # -- GPU and driver
    Row(
        "gpu_driver_too_old",
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old",
        "The NVIDIA driver is too old for this PyTorch.",
        "Update the NVIDIA driver and restart the machine, or install a PyTorch built for an older "
        "CUDA version.",
    ),
    Row(
        "no_gpu",
        r"Found no NVIDIA driver|Torch not compiled with CUDA|no CUDA-capable device|"
        r"No CUDA GPUs are available|Expected a cuda device|CUDA unknown error",
        "PyTorch found no NVIDIA GPU.",
        "Check that nvidia-smi lists the card and that the PyTorch in Musubi Tuner's environment "
        "was built for CUDA. After an update of the driver, restart the machine.",
    ),
    Row(
        "gpu_not_supported",
        r"no kernel image is available|is not compatible with the current PyTorch installation",
        "This PyTorch was not built for this graphics card.",
        "Install the PyTorch version that fits the card (a newer one for a new card) into Musubi "
        "Tuner's environment.",
    ),
    Row(
        "gpu_busy",
        r"CUDA-capable device\(s\) is/are busy",
        "Another program holds the GPU for itself.",
        "End the other program, then start again.",
    ),
    Row(
        "gpu_fault",
        r"illegal memory access|unspecified launch failure|device-side assert|GPU is lost|"
        r"CUDA error: (?:unknown|misaligned|an illegal|hardware)|uncorrectable ECC|"
        r"CUDNN_STATUS_|CUBLAS_STATUS_",
        "The GPU or its driver failed in the middle of the work.",
        "Start again. If it comes back: restart the machine, take back overclocking, update the "
        "driver, and try another attention (--sdpa).",
    ),
    # -- what is not installed
    Row(
        "musubi_not_installed",
        r"No module named 'musubi_tuner'|can't open file .*qwen_image_\w+\.py",
        "Musubi Tuner was not found where it should be.",
        "Check the folder of Musubi Tuner (MUSUBI_DIR) and its interpreter (MUSUBI_PYTHON).",
    ),
    Row(
        "bitsandbytes_missing",
        r"No bitsandbytes|No module named 'bitsandbytes'|libbitsandbytes|CUDA Setup failed",
        "AdamW8bit needs the package bitsandbytes, which is not (rightly) installed.",
        "Choose the optimizer AdamW or Adafactor, or install bitsandbytes into Musubi Tuner's "
        "environment.",
    ),
    Row(
        "bad_network_module",
        r"No module named '(?P<name>networks\.[^']*)'",
        "Musubi Tuner has no network module {name}.",
        f"{MEND_FLAGS} The usual one is networks.lora_qwen_image.",
    ),
    Row(
        "attention_missing",
        r"No module named '(?P<name>flash_attn|xformers|sageattention)[^']*'|"
        r"(?P<name2>xformers|flash_attn).*(?:not installed|not available)",
        "The attention chosen is not installed in Musubi Tuner's environment.",
        "Remove --xformers or --flash_attn under Advanced trainer flags: --sdpa needs nothing.",
    ),
    Row(
        "module_missing",
        r"No module named '(?P<name>[^']+)'",
        "The Python package {name} is not installed in Musubi Tuner's environment.",
        "Install what Musubi Tuner needs (in its folder: pip install -e .), then start again.",
    ),
    # -- model files
    Row(
        "tokenizer_offline",
        r"not NoneType",
        "The tokenizer of the text encoder is not on this machine, and could not be downloaded.",
        "Let the machine reach huggingface.co once: Musubi Tuner keeps the tokenizer (a few MB) "
        "from then on.",
        context=r"vocab_file|merges_file|tokenization_\w+\.py",
    ),
    Row(
        "tokenizer_offline",
        r"couldn't connect to|Can't load tokenizer|LocalEntryNotFoundError|"
        r"offline mode|huggingface\.co.*(?:Max retries|resolve|timed out|Connection)|"
        r"(?:ConnectionError|ConnectTimeout|ReadTimeout|NameResolutionError|ProxyError)",
        "Nothing could be downloaded from huggingface.co (for training: the tokenizer).",
        "Let the machine reach it once, or set HF_ENDPOINT to a mirror: what was downloaded is "
        "kept from then on.",
    ),
    Row(
        "wrong_model_file",
        r"loading state_dict for AutoencoderKL",
        "The file given as VAE is not the VAE of Qwen-Image.",
        GET_MODELS,
    ),
    Row(
        "wrong_model_file",
        r"loading state_dict for QwenImageTransformer",
        "The file given as diffusion model (DiT) is not that of Qwen-Image, or is an fp8 file.",
        f"{GET_MODELS} Musubi Tuner needs the bf16 file.",
    ),
    Row(
        "wrong_model_file",
        r"loading state_dict for Qwen2",
        "The file given as text encoder is not Qwen2.5-VL 7B, or is an fp8 file.",
        f"{GET_MODELS} Musubi Tuner needs the bf16 file.",
    ),
    Row(
        "wrong_model_file",
        r"must be '2511' variant",
        "The diffusion model is that of Qwen-Image-Edit 2511, which is not trained here.",
        GET_MODELS,
    ),
    Row(
        "wrong_weights",
        r"loading state_dict for (?P<name>\w+)",
        "The weights do not fit the network ({name}): another rank, or another kind of LoRA.",
        "Use the LoRA rank and network module the file was made with.",
    ),
    Row(
        "broken_model_file",
        r"HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer|deserializing header|"
        r"mmap length is greater than file size|unpack requires a buffer",
        "A model file is cut short or no safetensors file.",
        f"{GET_MODELS} Download it again.",
    ),
    Row(
        "broken_model_file",
        r"JSONDecodeError|UnicodeDecodeError|cannot reshape|buffer is smaller|"
        r"invalid for input of size",
        "A model file is cut short or no safetensors file.",
        f"{GET_MODELS} Download it again.",
        context=r"safetensors_utils\.py",
    ),
    # -- files and folders
    Row(
        "no_caption_extension",
        r"No such file or directory: ''",
        "The dataset file names no caption extension.",
        OUR_BUG,
        context=r"get_caption|caption_path",
    ),
    Row(
        "missing_model_file",
        r"No such file or directory: '(?P<name>[^']+\.safetensors)'",
        "The file {name} is not there.",
        GET_MODELS,
    ),
    Row(
        "missing_file",
        r"(?:No such file or directory|cannot find the (?:file|path) specified): "
        r"[\"'](?P<name>.+)[\"']",
        "The file {name} is not there.",
        "It was moved or deleted, or its path was mistyped. Put it back or correct the path.",
    ),
    Row(
        "missing_file",
        r"file not found / [^:]*: (?P<name>.+)",
        "The file {name} is not there.",
        "It was moved or deleted, or its path was mistyped. Put it back or correct the path.",
    ),
    Row(
        "missing_state",
        r"Tried to find (?P<name>.+) but folder does not exist",
        "The saved state {name} to go on from is not there.",
        "Give the folder of a state (its name ends in -state), or start without --resume.",
    ),
    Row(
        "no_permission",
        r"PermissionError|Read-only file system",
        "A file or folder may not be read or written.",
        "The log names it. Check its access rights, and whether another program has it open.",
    ),
    Row(
        "too_many_files",
        r"Too many open files",
        "Too many files were open at once.",
        "Raise the limit (ulimit -n 4096) before starting MusubiTLX, or add "
        "--max_data_loader_n_workers 1 under Advanced trainer flags.",
    ),
    # -- images, captions, dataset
    Row(
        "unreadable_image",
        r"cannot identify image file [\"'](?P<name>.+)[\"']",
        "The image {name} can't be read: it is damaged or no image.",
        "Remove it from the output folder, or replace it, then start again.",
    ),
    Row(
        "unreadable_image",
        r"image file is truncated|broken data stream|broken PNG|DecompressionBomb",
        "One of the images is damaged, cut short or far too large.",
        "Look which image can't be shown on the page; remove or replace it, then start again.",
    ),
    Row(
        "image_too_small",
        r"Image or video size too small: (?P<name>[^,]+?)(?: and|,)",
        "The image {name} is too small to be trained on.",
        "Remove it, or replace it by a larger one.",
    ),
    Row(
        "caption_not_utf8",
        r"UnicodeDecodeError",
        "A caption file is not UTF-8 text.",
        "Write the caption again on the page: it is saved as UTF-8 there.",
        context=r"get_caption|caption_path",
    ),
    Row(
        "brackets_in_path",
        r"No training items found",
        "Musubi Tuner finds no caches in a folder whose path contains [ ] * or ?.",
        "Rename or move the folder so that its whole path has none of these characters.",
        context=r'cache_directory: "[^"\n]*[\[\]*?]',
    ),
    Row(
        "no_training_items",
        r"No training items found",
        "Musubi Tuner found nothing to train on: there is no image with both of its caches.",
        "Check that the images have captions, and start again: missing caches are made anew.",
    ),
    Row(
        "bad_dataset_file",
        r"TomlDecodeError|MultipleInvalid: (?P<name>.*)|datasets should not be an empty|"
        r"Unsupported architecture: qi",
        "The dataset file is not as Musubi Tuner wants it.",
        OUR_BUG,
    ),
    # -- options
    Row(
        "unknown_option",
        r"error: unrecognized arguments: (?P<name>.+)",
        "Musubi Tuner does not know: {name}",
        f"{MEND_FLAGS} Perhaps it is a typing error, or an option of another version.",
    ),
    Row(
        "bad_option",
        r"error: argument (?P<name>[^:]+): (?P<what>.+)",
        "Musubi Tuner refuses a value of {name}: {what}.",
        MEND_FLAGS,
    ),
    Row(
        "bad_option",
        r"error: (?P<what>ambiguous option: .+|the following arguments are required: .+)",
        "Musubi Tuner refuses its options: {what}.",
        MEND_FLAGS,
    ),
    Row(
        "bad_optimizer",
        r"module 'torch\.optim' has no attribute ''",
        "No optimizer was given.",
        "Choose an optimizer.",
    ),
    Row(
        "bad_optimizer",
        r"module '[\w.]+' has no attribute '(?P<name>[^']*)'",
        "There is no optimizer called {name}.",
        "Choose AdamW, Adafactor or AdamW8bit, or mind upper and lower case in --optimizer_type.",
        context=r"get_optimizer\(",
    ),
    Row(
        "bad_scheduler",
        r"(?P<name>\S+) is not a valid SchedulerType",
        "There is no learning rate scheduler called {name}.",
        f"{MEND_FLAGS} Usual ones: constant, constant_with_warmup, cosine, linear.",
    ),
    Row(
        "bad_scheduler",
        r"(?:does not require|requires) `num_\w+`|reduce_lr_on_plateau|min_lr",
        "The learning rate scheduler and its other options do not go together.",
        f"{MEND_FLAGS} constant takes no --lr_warmup_steps: use constant_with_warmup.",
    ),
    Row(
        "too_many_blocks_swapped",
        r"Cannot swap more than (?P<most>\d+) blocks\. Requested (?P<asked>\d+)",
        "--blocks_to_swap {asked} is more than this model has to give ({most}).",
        f"{MEND_FLAGS} Qwen-Image has 60 blocks, so 59 is the most.",
    ),
    Row(
        "fp8_scaled_without_base",
        r"fp8_scaled requires fp8_base",
        "--fp8_scaled needs --fp8_base beside it.",
        "Add --fp8_base under Advanced trainer flags, or remove --fp8_scaled.",
    ),
    Row(
        "no_attention",
        r"either --sdpa, .* must be specified",
        "No usable attention was chosen.",
        "Put --sdpa into the Advanced trainer flags.",
    ),
    Row(
        "workers_zero",
        r"persistent_workers option needs num_workers > 0",
        "--persistent_data_loader_workers needs at least one data loader worker.",
        "Raise --max_data_loader_n_workers to 1 or more, or remove the other flag.",
    ),
    Row(
        "dim_from_weights",
        r"expected str, bytes or os\.PathLike object, not bool",
        "--dim_from_weights does not work in this version of Musubi Tuner.",
        "Remove it under Advanced trainer flags and set the LoRA rank to that of the file.",
    ),
    Row(
        "bad_option",
        r"KeyError|literal_eval|malformed node|not enough values to unpack|too many values to",
        "An option of the form name=value is not written as Musubi Tuner reads it.",
        f"{MEND_FLAGS} Words and numbers only, like weight_decay=0.1, without spaces.",
        context=r"_args\b.*split|literal_eval",
    ),
    Row(
        "every_zero",
        r"ZeroDivisionError",
        "A number is 0 that Musubi Tuner divides by.",
        "Look for 0 in the Advanced trainer flags (--save_every_..., --sample_every_...): leave "
        "such an option out instead.",
    ),
    Row(
        "no_output_dir",
        r"not NoneType",
        "The folder to save in was not given, so the trained LoRA could not be saved.",
        OUR_BUG,
        context=r"makedirs\(args\.output_dir",
    ),
    Row(
        "no_output_name",
        r"unsupported operand type\(s\) for \+: 'NoneType' and 'str'",
        "The file name was not given, so the trained LoRA could not be saved.",
        OUR_BUG,
        context=r"ckpt_name|output_name",
    ),
    # -- the rest
    Row(
        "unicode_output",
        r"UnicodeEncodeError",
        "Musubi Tuner could not print Japanese letters to this console.",
        "Set PYTHONUTF8=1 in the environment. " + OUR_BUG,
    ),
    # The launcher's words for a child that a signal ended.
    Row("killed", r"died with <Signals\.SIGKILL", *KILLED[1:]),
    Row("terminated", r"died with <Signals\.SIGTERM", *TERMINATED[1:]),
    Row("crashed", r"died with <Signals\.SIG(?:SEGV|ABRT|BUS|ILL|FPE)", *CRASHED[1:]),
    Row(
        "interrupted",
        r"^KeyboardInterrupt",
        "Somebody interrupted it (Ctrl+C, or the interrupt signal).",
        "Start again: nothing was saved after the last checkpoint.",
    ),
)

INTERRUPTED = next((r.code, r.cause, r.remedy) for r in ERRORS if r.code == "interrupted")

# By exit code: as Python tells a signal, as a shell does, as Windows does.
SIGNALS = {
    **dict.fromkeys((-9, 137), KILLED),
    **dict.fromkeys((-1, -15, 129, 143), TERMINATED),
    **dict.fromkeys((-2, 130, 0xC000013A), INTERRUPTED),
    **dict.fromkeys((-4, -6, -7, -8, -11, 132, 134, 135, 136, 139), CRASHED),
    **dict.fromkeys((0xC0000005, 0xC0000409, 0xC000001D), CRASHED),
}

# Told from the log as a whole, where it holds no error.
SILENT = (
    Row(
        "no_images",
        r"(?s)found 0 images(?!.*found [1-9]\d* images)",
        "Musubi Tuner found no image with a caption.",
        "Check that the output folder holds images and each has a caption, then start again.",
    ),
    Row(
        "nan_loss",
        r"avr_loss=nan",
        "The loss became NaN: training has run away and its LoRA is worthless.",
        "Halve the learning rate, use bf16 rather than fp16, and look for broken images.",
    ),
    Row(
        "wrong_model_file",  # its beginning stands further up: the list of names fills the tail
        r"(?:Missing|Unexpected) key\(s\) in state_dict|(?:\"[\w.]+\", ){9}|size mismatch for ",
        "A model file does not fit: it is that of another model, or an fp8 file.",
        GET_MODELS,
    ),
)
