"""What a run trains on: the cached pictures, their batches, and how many steps they make."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np

from musubitlx.practice import caches
from musubitlx.practice.bars import logger
from musubitlx.practice.caches import Item
from musubitlx.practice.config import Dataset
from musubitlx.practice.dataset import open_datasets

log = logger("dataset.bucket")

Batch = list[Item]


@dataclass
class Plan:
    """The pictures of a run and the batches, epochs and steps they make."""

    datasets: list[Dataset]
    items: list[list[Item]]  # per dataset, without repeats
    epochs: int = 0
    steps: int = 0

    def __post_init__(self):
        self.pictures = 0  # an epoch shows, repeats included
        self.batches = 0  # per epoch
        for dataset, bucket in self._buckets():
            shown = len(bucket) * dataset.num_repeats
            self.pictures += shown
            self.batches += math.ceil(shown / dataset.batch_size)

    def set_length(self, args: argparse.Namespace) -> None:
        """Work out steps and epochs; whole epochs, when asked for, override the steps."""
        per_epoch = math.ceil(self.batches / args.gradient_accumulation_steps)
        if args.max_train_epochs is not None:
            args.max_train_steps = args.max_train_epochs * per_epoch
            print(
                f"override steps. steps for {args.max_train_epochs} epochs is"
                f" / 指定エポックまでのステップ数: {args.max_train_steps}"
            )
        self.steps = args.max_train_steps
        self.epochs = math.ceil(self.steps / per_epoch)

    def epoch_batches(self, rng: np.random.Generator) -> list[Batch]:
        """Mix the pictures anew: batches of one bucket each, in random order."""
        batches = []
        for dataset, bucket in self._buckets():
            shown = [item for item in bucket for _ in range(dataset.num_repeats)]
            mixed = [shown[index] for index in rng.permutation(len(shown))]
            size = dataset.batch_size
            batches += [mixed[start : start + size] for start in range(0, len(mixed), size)]
        return [batches[index] for index in rng.permutation(len(batches))]

    def _buckets(self) -> list[tuple[Dataset, list[Item]]]:
        """Each bucket with the dataset it belongs to, in Musubi's order."""
        pairs = []
        for dataset, items in zip(self.datasets, self.items, strict=True):
            pairs += [(dataset, members) for _, members in sorted_buckets(items)]
        return pairs


def read_plan(dataset_config: str | None, arch: str) -> Plan:
    """Read all caches; ValueError when there is nothing to train on."""
    datasets = [dataset for dataset, _ in open_datasets(dataset_config)]
    items = [_load_items(dataset, arch) for dataset in datasets]
    plan = Plan(datasets, items)
    if not plan.pictures:
        raise ValueError(
            "No training items found in the dataset. Please ensure that the latent/Text Encoder"
            " cache has been created beforehand."
        )
    return plan


def sorted_buckets(items: list[Item]) -> list[tuple[tuple[int, int], list[Item]]]:
    """Group pictures by bucket, smallest bucket first."""
    groups: dict[tuple[int, int], list[Item]] = {}
    for item in items:
        groups.setdefault(item.bucket, []).append(item)
    return sorted(groups.items())


def _load_items(dataset: Dataset, arch: str) -> list[Item]:
    items, batches = caches.load_items(dataset, arch), 0
    for bucket, members in sorted_buckets(items):
        shown = len(members) * dataset.num_repeats
        log.info("bucket: %s, count: %d", bucket, shown)
        batches += math.ceil(shown / dataset.batch_size)
    log.info("total batches: %d", batches)
    return items
