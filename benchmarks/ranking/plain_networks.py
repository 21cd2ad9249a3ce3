"""The networks of the selection suites as ordinary modules, before and after their training."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

from stacked import PlainNetwork, StackedNetwork
from suites import SUITES, Data, Suite
from training import SEEDS, network_of

from sharpfit.bridge import Problem
from sharpfit.objective import as_sample_loss

__all__ = ["SUITES", "before_and_after", "problem"]


class Residual(nn.Module):
    """A block that adds what enters it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's outputs on top of its inputs."""
        return x + self.block(x)


def chain(stack: StackedNetwork, position: int) -> nn.Sequential:
    """Take one member out of a stack, as a chain of torch's own layers in evaluation mode."""
    member = PlainNetwork(stack, position)
    layers: list[nn.Module] = []
    for level, block in enumerate(member.blocks):
        if member.residual and level:
            layers.append(Residual(block))
        else:
            layers.extend(block)
    if stack.image:
        layers.append(nn.Flatten())
    return nn.Sequential(*layers, member.head).eval()


def before_and_after(
    suite: Suite, index: int, result: dict[str, Any], position: int, data: Data
) -> tuple[nn.Module, nn.Module]:
    """Return one network before its training and after it."""
    with torch.random.fork_rng():
        torch.manual_seed(index)  # as the training drew its weights
        initial = network_of(suite, result["configuration"], len(SEEDS), data)
    final = network_of(suite, result["configuration"], len(SEEDS), data)
    final.load_state_dict(result["state"])
    return chain(initial, position), chain(final, position)


def problem(suite: Suite, module: nn.Module, data: Data) -> Problem:
    """Put a network and its training rows together as the measures want them."""
    regression = suite.task == "regression"
    if regression:
        criterion: nn.Module = nn.MSELoss()
        targets = torch.from_numpy(data.y.astype(np.float32)).unsqueeze(1)
    elif suite.one_logit:
        criterion = nn.BCEWithLogitsLoss()
        targets = torch.from_numpy(data.y.astype(np.float32)).unsqueeze(1)
    else:
        criterion, targets = nn.CrossEntropyLoss(), torch.from_numpy(data.y.astype(np.int64))
    return Problem(
        estimator=None,
        refitted=False,
        network=None,
        module=module,
        loss=as_sample_loss(criterion),
        objective=None,
        inputs=torch.from_numpy(data.X.reshape(len(data.X), *suite.input_shape)),
        targets=targets,
        sample_weight=None,
        task=suite.task,
        classes=None if regression else np.arange(int(data.y.max()) + 1),
        labels=None if regression else data.y.astype(np.int64),
        preprocessing=(),
        target_transformer=None,
        raw_inputs=data.X,
    )
