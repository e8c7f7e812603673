"""Measuring in several processes: each scores its share of the rows, and the sums of all are one
and the same everywhere.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that `torchrun` started, if it did, for as long as this lasts; gives this
    one's device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield device
        return
    local = f"cuda:{local_rank()}" if device == "cuda" else device
    if local.startswith("cuda"):
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if local.startswith("cuda") else "gloo")
    try:
        yield local
    finally:
        dist.destroy_process_group()


@contextmanager
def shared_folder() -> Iterator[str | None]:
    """A folder for the processes of a machine, as long as this lasts; None for one alone."""
    if world_size() == 1:
        yield None
        return
    own = tempfile.mkdtemp(prefix="textdiff-") if local_rank() == 0 else None
    everyones: list[Any] = [None] * world_size()
    dist.all_gather_object(everyones, own)
    try:
        yield everyones[rank() - local_rank()]
    finally:
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)  # what is mapped into memory stays there


@contextmanager
def one_first() -> Iterator[None]:
    """The first process of each machine does this before the others do."""
    if world_size() > 1 and local_rank() > 0:
        dist.barrier()
    yield
    if world_size() > 1 and local_rank() == 0:
        dist.barrier()


def local_rank() -> int:
    """The number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """The number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """The sum of all processes' float64 values."""
    if world_size() == 1:
        return values
    together = values.cuda() if dist.get_backend() == "nccl" else values.cpu().clone()
    dist.all_reduce(together)
    return together.to(values.device)
