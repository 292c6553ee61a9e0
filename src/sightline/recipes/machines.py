"""Where a run runs: processes, machines, and how the network is spread over them.

`batch` is the batch of all processes together, and process r of n reads every n-th sample of it from r on; gradients
are averaged.  So a run does the same on one process as on many, to rounding, where its loss is a mean over samples
that does not depend on the other samples of the batch.  What training_step draws at random (augmentation, dropout)
follows from (seed, step, r): the same at each repetition with as many processes, of the same distribution with others.
"""

import logging
import signal
from functools import partial
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn

from sightline.recipes.plan import TrainingError

STRATEGIES = ("ddp", "fsdp")
log = logging.getLogger("sightline")


def halves() -> bool:
    """Tells whether bfloat16 is computed here: on a GPU, or by a CPU that knows it."""
    return torch.cuda.is_available() or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fitted(plan: dict[str, Any]) -> dict[str, Any]:
    """Gives the plan of a new run in full precision where bfloat16 is not computed, and says so.

    A CPU without it takes ten times as long for a step in bfloat16, and has no LSTM in it at all.
    """
    if plan["settings"]["precision"] == "bf16-mixed" and not halves():
        log.warning("precision=32-true, as this CPU does not compute bfloat16")
        plan["settings"]["precision"] = "32-true"
    return plan


def check_machines(machines: dict[str, Any], batch: int, accumulate: int = 1) -> None:
    """Raises TrainingError for numbers below 1, an unknown strategy, a batch that cannot be shared, missing GPUs.

    Shared by all processes, and by each in `accumulate` parts.
    """
    for key in ("devices", "nodes"):
        if not isinstance(machines[key], int) or machines[key] < 1:
            raise TrainingError(f"{key}={machines[key]!r}: expected a whole number of 1 or more")
    if machines["strategy"] not in STRATEGIES:
        raise TrainingError(f"strategy={machines['strategy']!r}: expected {' or '.join(STRATEGIES)}")
    world = machines["devices"] * machines["nodes"]
    if batch % (world * accumulate):
        among = [f"by {world} processes"] * (world > 1) + [f"in accumulate={accumulate} parts"] * (accumulate > 1)
        told = f"batch={batch} cannot be shared evenly {' '.join(among)}; give a multiple of {world * accumulate}"
        raise TrainingError(told)
    if torch.cuda.is_available() and machines["devices"] > torch.cuda.device_count():
        raise TrainingError(f"devices={machines['devices']}: this machine has {torch.cuda.device_count()} GPUs")


def trainer_options(machines: dict[str, Any], recipe: lightning.LightningModule) -> dict[str, Any]:
    """Gives Lightning's options for processes and strategy; for "fsdp" the recipe learns how to shard itself."""
    devices, nodes = machines["devices"], machines["nodes"]
    options: dict[str, Any] = {"devices": devices, "num_nodes": nodes, "sync_batchnorm": torch.cuda.is_available()}
    if machines["strategy"] == "fsdp":
        recipe.configure_model = partial(_shard, recipe)  # type: ignore[method-assign]
        whole = {"data_parallel_size": devices * nodes, "tensor_parallel_size": 1}
        return options | {"strategy": ModelParallelStrategy(**whole, save_distributed_checkpoint=False)}
    if devices * nodes > 1:
        # a step need not use every parameter: a hard choice, a part that is trained in turn
        return options | {"strategy": DDPStrategy(find_unused_parameters=True)}
    return options


def stop_others(trainer: lightning.Trainer) -> None:
    """Ends the processes that this one started, which would wait for it for ever."""
    kill = getattr(trainer.strategy.launcher, "kill", None)
    if kill is not None:
        kill(signal.SIGKILL)


def _shard(recipe: Any) -> None:
    """Shards the trained system, its kept copy and every other part of the recipe, layer by layer (FSDP2)."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    loose = [name for name, parameter in recipe.named_parameters(recurse=False) if parameter.requires_grad]
    if loose:
        raise TrainingError(f"strategy=fsdp: the recipe's own parameters {', '.join(loose)} belong into its system")
    mesh = recipe.device_mesh["data_parallel"]
    for part in recipe.children():
        kept = [recipe.kept] if any(module is recipe.kept for module in part.modules()) else []
        for root in kept or [part]:
            layers = [layer for many in root.modules() if isinstance(many, nn.ModuleList) for layer in many]
            for module in (*layers, root):
                if any(True for _ in module.parameters()):
                    # also after a forward without a backward, as in validation
                    fully_shard(module, mesh=mesh, reshard_after_forward=True)
            if hasattr(root, "loss"):
                register_fsdp_forward_method(root, "loss")
