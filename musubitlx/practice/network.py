"""The practice network: a small frozen denoiser, and LoRA layers that learn on it.

The frozen part is the practice trainer's "Qwen-Image". It knows one thing about
pictures: strength falls with frequency. So it takes a picture for a draw from
a normal distribution N(m, s) per frequency with s fixed and m a soft cloud that
depends on the caption, and denoises as Bayes' rule says. The LoRA layers learn
m (how the user's pictures look) and how far to trust it (a factor on s per
band of frequencies), from the noisy picture, the time and the caption.

Shapes: n noisy pictures at a time, one per row; vectors as in codec.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from musubitlx.practice import captions, codec

BASE_SEED = 20_250_804  # draws the frozen weights: the same "model" on every machine
HIDDEN = 192
BLOCKS = 2
LOOK = 12  # the network sees this many frequencies per direction and plane
TIME_WAVES = 16
CLOUDS = 24  # soft patterns the frozen output layer mixes
CAPTION_GAIN = 25.0  # a caption weighs about as much as the picture does
STRENGTH = np.array([0.28, 0.13, 0.08], np.float32)  # of the planes, per root of pixels
FALL = 1.25  # strength falls with frequency to this power
BANDS = (1.5, 3, 6, 12, 24)  # where bands of frequencies end
TRUST = (-5.0, 1.0)  # bounds of the logarithm of the factor on s

FREQUENCY = np.sqrt(codec.ROW**2 + codec.COLUMN**2)
SPECTRUM = (STRENGTH[codec.CHANNEL] / np.sqrt(FREQUENCY**2 + 1) ** FALL).astype(np.float32)
BAND = (np.digitize(FREQUENCY, BANDS) + codec.CHANNEL * (len(BANDS) + 1)).astype(np.intp)
BAND_COUNT = 3 * (len(BANDS) + 1)
SEEN = np.flatnonzero((codec.ROW < LOOK) & (codec.COLUMN < LOOK))


class LoraLinear:
    """A frozen linear layer and its trainable detour: y = W x + scale * up (down x).

    `down`, `up` and their gradients are views into the network's flat arrays.
    """

    def __init__(self, name: str, weight: list[np.ndarray], rank: int, scale: float):
        self.name = name
        self.weight = weight  # factors, applied first to last: each (inputs, outputs)
        self.scale = np.float32(scale)
        self.shapes = {"down": (rank, weight[0].shape[0]), "up": (weight[-1].shape[1], rank)}
        self.values: dict[str, np.ndarray] = {}
        self.gradients: dict[str, np.ndarray] = {}

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Map rows (n, inputs) to rows (n, outputs), and remember what `backward` needs."""
        self._x = x
        self._low = x @ self.values["down"].T
        for factor in self.weight:
            x = x @ factor
        return x + (self.scale * self._low) @ self.values["up"].T

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """Store the gradients of `down` and `up`; return the one of the input."""
        low = self.scale * (gradient @ self.values["up"])
        np.matmul(gradient.T, self.scale * self._low, out=self.gradients["up"])
        np.matmul(low.T, self._x, out=self.gradients["down"])
        for factor in reversed(self.weight):
            gradient = gradient @ factor.T
        return gradient + low @ self.values["down"]


class Block:
    """h + fc2(silu(fc1(norm(h)))): one residual block."""

    def __init__(self, inner: LoraLinear, outer: LoraLinear):
        self.inner, self.outer = inner, outer

    def forward(self, h: np.ndarray) -> np.ndarray:
        """Map rows (n, HIDDEN) to rows of the same shape."""
        self._norm = Norm()
        z = self.inner.forward(self._norm.forward(h))
        gate = 1 / (1 + np.exp(-np.clip(z, -60, 60)))
        self._slope = gate * (1 + z * (1 - gate))
        return h + self.outer.forward(z * gate)

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """Store the gradients of both layers; return the one of the input."""
        inner = self.inner.backward(self.outer.backward(gradient) * self._slope)
        return gradient + self._norm.backward(inner)


class Norm:
    """Each row divided by its root mean square."""

    def forward(self, h: np.ndarray) -> np.ndarray:
        """Map rows to rows of root mean square 1."""
        self._rate = 1 / np.sqrt(np.mean(h * h, axis=1, keepdims=True) + 1e-6)
        self._y = h * self._rate
        return self._y

    def backward(self, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient of the input."""
        along = np.mean(gradient * self._y, axis=1, keepdims=True)
        return self._rate * (gradient - self._y * along)


class PracticeNetwork:
    """The denoiser with its LoRA of the given rank and alpha; `seed` draws the LoRA's start."""

    def __init__(self, rank: int, alpha: float, seed: int):
        if rank < 1:
            raise ValueError(f"--network_dim must be 1 or more, not {rank}")
        self.rank, self.alpha = rank, float(alpha)
        make = _LayerMaker(rank, alpha / rank)
        self.picture_in = make("practice_blocks_0_img_in", [make.frozen(len(SEEN), HIDDEN)])
        self.time_in = make("practice_blocks_0_time_in", [make.frozen(2 * TIME_WAVES, HIDDEN)])
        self.caption_in = make(
            "practice_blocks_0_txt_in", [make.frozen(captions.SIZE, HIDDEN, CAPTION_GAIN)]
        )
        self.blocks = [_make_block(make, index) for index in range(1, BLOCKS + 1)]
        self.picture_out = make(f"practice_blocks_{BLOCKS + 1}_img_out", make.clouds())
        self.trust_out = make(
            f"practice_blocks_{BLOCKS + 1}_img_mod", [np.zeros((HIDDEN, BAND_COUNT), np.float32)]
        )
        self.layers = make.layers
        self._lay_out(np.random.default_rng([seed, 1]))

    def predict(
        self, noisy: np.ndarray, time: np.ndarray, caption: np.ndarray, sizes: Sizes
    ) -> np.ndarray:
        """Return the clean pictures the network believes in.

        `noisy` is (n, codec.SIZE) at `time` (n; 1 is pure noise, never 0), `caption`
        is (n, captions.SIZE).
        """
        noise_share, picture_share = time[:, None], 1 - time[:, None]
        spread = (picture_share * sizes.spectrum) ** 2 + noise_share**2
        seen = (noisy[:, SEEN] / np.sqrt(spread[:, SEEN])).astype(np.float32)
        h = self.picture_in.forward(seen) + self.time_in.forward(_time_features(time))
        h += self.caption_in.forward(caption)
        for block in self.blocks:
            h = block.forward(h)
        self._norm = Norm()
        top = self._norm.forward(h)
        mean = sizes.spectrum * self.picture_out.forward(top)
        return self._bayes(noisy, noise_share, picture_share, mean, top, sizes)

    def _bayes(self, noisy, noise_share, picture_share, mean, top, sizes) -> np.ndarray:
        """Mean of the clean picture, given the noisy one and the prior N(mean, spread)."""
        trust = self.trust_out.forward(top)
        bounded = np.clip(trust, *TRUST)
        variance = sizes.spectrum**2 * np.exp(2 * bounded)[:, BAND]
        total = picture_share**2 * variance + noise_share**2
        prior_weight = noise_share**2 / total
        gain = picture_share * variance / total
        surprise = noisy - picture_share * mean
        self._tape = (sizes, prior_weight, 2 * gain * prior_weight * surprise, bounded == trust)
        return prior_weight * mean + gain * noisy

    def backward(self, gradient: np.ndarray) -> None:
        """Fill `gradients` from the gradient of the loss by what `predict` returned last."""
        sizes, prior_weight, by_trust, inside = self._tape
        bands = _sum_bands(gradient * by_trust) * inside
        top = self.picture_out.backward(gradient * prior_weight * sizes.spectrum)
        h = self._norm.backward(top + self.trust_out.backward(bands))
        for block in reversed(self.blocks):
            h = block.backward(h)
        for layer in (self.caption_in, self.time_in, self.picture_in):
            layer.backward(h)

    def tensors(self) -> dict[str, np.ndarray]:
        """The LoRA as its file holds it."""
        arrays = {}
        for layer in self.layers:
            arrays[f"lora_unet_{layer.name}.alpha"] = np.array(self.alpha, np.float32)
            for part in ("down", "up"):
                arrays[f"lora_unet_{layer.name}.lora_{part}.weight"] = layer.values[part]
        return arrays

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over a LoRA file's values; ValueError when they are not for this network."""
        for name, array in self.tensors().items():
            if name.endswith(".alpha"):
                continue
            if name not in arrays or arrays[name].shape != array.shape:
                raise ValueError(
                    f"size mismatch for {name}: not a practice LoRA of rank {self.rank}"
                )
            array[...] = arrays[name]

    def _lay_out(self, rng: np.random.Generator) -> None:
        """Put all trainable numbers side by side; `down` starts random and `up` at zero."""
        count = sum(rows * columns for _, _, (rows, columns) in self._parts())
        self.parameters = np.zeros(count, np.float32)
        self.gradients = np.zeros(count, np.float32)
        start = 0
        for layer, part, shape in self._parts():
            end = start + shape[0] * shape[1]
            layer.values[part] = self.parameters[start:end].reshape(shape)
            layer.gradients[part] = self.gradients[start:end].reshape(shape)
            if part == "down":
                bound = np.sqrt(3 / shape[1])
                layer.values[part][...] = rng.uniform(-bound, bound, shape)
            start = end

    def _parts(self) -> Iterator[tuple[LoraLinear, str, tuple[int, int]]]:
        for layer in self.layers:
            for part in ("down", "up"):
                yield layer, part, layer.shapes[part]


class Sizes:
    """What the network has to know about the sizes of n pictures, one row each."""

    def __init__(self, sizes: list[tuple[int, int]]):
        self.mask = np.stack([codec.mask(width, height) for width, height in sizes])
        pixels = np.array([width * height for width, height in sizes], np.float32)
        self.spectrum = SPECTRUM * np.sqrt(pixels)[:, None]
        self.numbers = self.mask.sum(axis=1)  # how many frequencies each picture has


class _LayerMaker:
    """Makes layers with frozen weights drawn in a fixed order, and keeps a list of them."""

    def __init__(self, rank: int, scale: float):
        self._rng = np.random.default_rng(BASE_SEED)
        self._rank, self._scale = rank, scale
        self.layers: list[LoraLinear] = []

    def __call__(self, name: str, weight: list[np.ndarray]) -> LoraLinear:
        layer = LoraLinear(name, weight, self._rank, self._scale)
        self.layers.append(layer)
        return layer

    def frozen(self, inputs: int, outputs: int, gain: float = 1.0) -> np.ndarray:
        weight = self._rng.standard_normal((inputs, outputs), np.float32)
        return weight * np.float32(gain / np.sqrt(inputs))

    def clouds(self) -> list[np.ndarray]:
        patterns = self._rng.standard_normal((CLOUDS, codec.SIZE), np.float32)
        return [self.frozen(HIDDEN, CLOUDS, 0.5 / np.sqrt(CLOUDS)), patterns]


def _make_block(make: _LayerMaker, index: int) -> Block:
    name = f"practice_blocks_{index}_img_mlp_net"
    inner = make(f"{name}_0_proj", [make.frozen(HIDDEN, 2 * HIDDEN)])
    return Block(inner, make(f"{name}_2", [make.frozen(2 * HIDDEN, HIDDEN, 0.7)]))


def _time_features(time: np.ndarray) -> np.ndarray:
    angles = np.pi * time[:, None] * np.linspace(0.5, 8, TIME_WAVES, dtype=np.float32)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def _sum_bands(rows: np.ndarray) -> np.ndarray:
    """Sum each row over its bands of frequencies."""
    return np.stack([np.bincount(BAND, weights=row, minlength=BAND_COUNT) for row in rows]).astype(
        np.float32
    )
