"""MusubiTLX: from a folder of pictures to a trained Qwen-Image LoRA, without the web layer."""

__version__ = "0.7.0"
