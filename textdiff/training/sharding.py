"""Weights sharded over processes (FSDP2), for networks that do not fit one; checkpoints are whole.

Sharded.setup     whole network on every rank  ->  a shard of each weight on every rank
a step            blocks gathered one by one; embedding and head stay gathered to its end
a checkpoint      gathered, and written as one process would: it opens with any number of them
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from .module import TextDiffusion


def whole(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state with its shards gathered, one after another, into the host's memory; all ranks call
    it. What is no shard stays as it is.
    """
    return {
        name: value.full_tensor().cpu() if isinstance(value, DTensor) else value
        for name, value in state.items()
    }


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2 over all processes, every block of any network by itself.

    Weights and averages (`WeightAveraging`) are sharded once the trainer has made or restored them
    whole, so each process needs host memory for all weights at the start; device memory for its
    share, one block and the embedding. Gradients are clipped by their norm over all processes.
    """

    def __init__(self, process_group_backend: str | None = None):
        super().__init__(
            save_distributed_checkpoint=False, process_group_backend=process_group_backend
        )

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """While all is whole."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """By `load_optimizer_state_dict`."""
        return True

    def setup_environment(self) -> None:
        """All processes share the data, none a matrix."""
        self._tensor_parallel_size = 1
        self._data_parallel_size = self.num_processes * self.num_nodes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Shard the network and the average that callbacks hold of it."""
        modules: list[nn.Module | None] = [self.lightning_module]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging) and callback._average_model is not None:
                modules.append(callback._average_model.module)
        for module in modules:
            if isinstance(module, TextDiffusion):
                self._shard(module.denoiser)
        super().setup(trainer)

    def _shard(self, network: Any) -> None:
        mesh = self.device_mesh["data_parallel"]
        for block in network.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)
        register_fsdp_forward_method(network, "body")

    def validation_step(self, *arguments: Any, **options: Any) -> Any:
        """Gathered weights are not kept: those that are averaged may take their place."""
        output = super().validation_step(*arguments, **options)
        self._reshard()
        return output

    def _reshard(self) -> None:
        model: Any = self.lightning_module
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole weights, on rank 0 alone."""
        self._reshard()
        model: Any = self.lightning_module
        state = whole(model.state_dict())
        return state if self.is_global_zero else {}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Into weights that are whole yet."""
        ParallelStrategy.load_model_state_dict(self, checkpoint, strict)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """As of one process."""
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None
    ) -> None:
        """Gather what callbacks have put in, and write it on rank 0."""
        gathered = {
            name: whole(value) if name in ("state_dict", "current_model_state") else value
            for name, value in checkpoint.items()
        }
        ParallelStrategy.save_checkpoint(self, gathered, filepath, storage_options)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As of one process, whole."""
        state: dict[str, Any] = ParallelStrategy.optimizer_state(self, optimizer)
        return state | {"state": {key: whole(each) for key, each in state["state"].items()}}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """From a state that is whole."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            shards = {key: _cut(each, parameters[key]) for key, each in state["state"].items()}
            optimizer.load_state_dict(state | {"state": shards})


def _cut(state: Mapping[str, Any], parameter: nn.Parameter) -> dict[str, Any]:
    """This rank's shards of what an optimizer knows of a parameter."""

    def shard(value: Any) -> Any:
        like = isinstance(value, Tensor) and value.shape == parameter.shape
        if not like or not isinstance(parameter, DTensor):
            return value
        there = value.to(parameter.device_mesh.device_type)
        return distribute_tensor(there, parameter.device_mesh, parameter.placements)

    return {name: shard(value) for name, value in state.items()}
