"""Networks of one shape trained side by side: every layer holds the weights of all members.

The members share nothing: their losses are summed, so each receives its own gradient, and the
optimisers used act entry by entry. Training them together only saves interpreter time.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


class StackedLinear(nn.Module):
    """Linear layers with torch's default initialisation, (E, B, in) to (E, B, out)."""

    def __init__(self, members: int, n_in: int, n_out: int) -> None:
        super().__init__()
        limit = 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(torch.empty(members, n_in, n_out).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.empty(members, 1, n_out).uniform_(-limit, limit))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of every member."""
        return torch.baddbmm(self.bias, x, self.weight)


class StackedConvolution(nn.Module):
    """3x3 convolutions with padding, (B, E * in, H, W) to (B, E * out, H, W)."""

    def __init__(self, members: int, n_in: int, n_out: int) -> None:
        super().__init__()
        limit = 1 / math.sqrt(9 * n_in)
        self.weight = nn.Parameter(torch.empty(members, n_out, n_in, 3, 3).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.empty(members, n_out).uniform_(-limit, limit))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of every member."""
        return functional.conv2d(
            x, self.weight.flatten(0, 1), self.bias.flatten(), padding=1, groups=len(self.weight)
        )


class StackedBatchNorm(nn.Module):
    """Batch norm of every member by itself; running statistics are kept per member."""

    def __init__(self, members: int, n_features: int, *, of_images: bool = False) -> None:
        super().__init__()
        self.of_images = of_images
        self.weight = nn.Parameter(torch.ones(members, n_features))
        self.bias = nn.Parameter(torch.zeros(members, n_features))
        self.register_buffer("mean", torch.zeros(members, n_features))
        self.register_buffer("variance", torch.ones(members, n_features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (E, B, F), or (B, E * F, H, W)."""
        rows = x if self.of_images else x.transpose(0, 1).flatten(1)
        mean, variance = self.mean.flatten(), self.variance.flatten()
        rows = functional.batch_norm(
            rows, mean, variance, self.weight.flatten(), self.bias.flatten(), self.training
        )
        return rows if self.of_images else rows.unflatten(1, self.weight.shape).transpose(0, 1)


class GatedUnit(nn.Module):
    """A gated recurrent unit, its last state; of one network, or of a stack of them.

    The layers return three values for each unit: of two gates and of the candidate state.
    """

    def __init__(self, of_inputs: nn.Module, of_state: nn.Module) -> None:
        super().__init__()
        self.of_inputs = of_inputs
        self.of_state = of_state

    def forward(self, x: Tensor) -> Tensor:
        """Read steps, (..., T, c) to (..., h)."""
        state: Tensor | None = None
        for step in x.unbind(-2):
            reset, update, candidate = self.of_inputs(step).chunk(3, -1)
            if state is None:
                state = torch.zeros_like(reset)
            its_reset, its_update, its_candidate = self.of_state(state).chunk(3, -1)
            update = torch.sigmoid(update + its_update)
            reset = torch.sigmoid(reset + its_reset)
            state = update * state + (1 - update) * torch.tanh(candidate + reset * its_candidate)
        assert state is not None
        return state


class StackedNetwork(nn.Module):
    """Perceptrons, small convolutional or recurrent networks, (E, B, d) to (E, B, C).

    An image of height one is a signal: convolutions and pooling act along its length. A recurrent
    network reads the rows of its image one by one; the layers above it are those of a perceptron.
    """

    def __init__(
        self,
        members: int,
        n_in: int,
        n_out: int,
        *,
        width: int,
        depth: int,
        activation: str,
        dropout: float = 0.0,
        normalised: bool = False,
        residual: bool = False,
        convolutional: bool = False,
        recurrent: bool = False,
        image: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.image = image if convolutional or recurrent else None
        self.recurrent = recurrent
        self.residual = residual
        blocks = []
        size = 1 if convolutional else n_in
        height, breadth = image or (1, 1)
        if recurrent:
            of_inputs = StackedLinear(members, breadth, 3 * width)
            of_state = StackedLinear(members, width, 3 * width)
            blocks.append(nn.Sequential(GatedUnit(of_inputs, of_state)))
            size = width
        for level in range(1 if recurrent else 0, depth):
            n_units = width * 2**level if convolutional else width
            layer = StackedConvolution if convolutional else StackedLinear
            block: list[nn.Module] = [layer(members, size, n_units)]
            if normalised:
                block.append(StackedBatchNorm(members, n_units, of_images=convolutional))
            block.append(ACTIVATIONS[activation]())
            if convolutional:
                block.append(nn.MaxPool2d((min(2, height), min(2, breadth))))
                height, breadth = max(1, height // 2), max(1, breadth // 2)
            if dropout and not convolutional:
                block.append(nn.Dropout(dropout))
            blocks.append(nn.Sequential(*block))
            size = n_units
        self.blocks = nn.ModuleList(blocks)
        self.dropout = nn.Dropout(dropout if convolutional else 0.0)
        if image and convolutional:
            size *= height * breadth
        self.head = StackedLinear(members, size, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of every member on its own rows."""
        members = len(x)
        if self.recurrent:
            x = x.unflatten(2, self.image)  # (E, B, T, c)
        elif self.image:
            x = x.transpose(0, 1).unflatten(2, self.image)  # (B, E, H, W)
        for level, block in enumerate(self.blocks):
            out = block(x)
            x = x + out if self.residual and level else out
        if self.image and not self.recurrent:
            x = x.unflatten(1, (members, -1)).transpose(0, 1).flatten(2)
        return self.head(self.dropout(x))


class PlainNetwork(nn.Module):
    """One member of a stack made of torch's own layers, (B, ...) to (B, C).

    Rows are vectors, images of one channel, or steps; `Suite.input_shape` says which.
    """

    def __init__(self, stack: StackedNetwork, member: int = 0) -> None:
        super().__init__()
        self.residual = stack.residual
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_plain_layer(layer, member) for layer in block))
            for block in stack.blocks
        )
        self.head = _plain_layer(stack.head, member)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs of shape (B, C)."""
        for level, block in enumerate(self.blocks):
            out = block(x)
            x = x + out if self.residual and level else out
        return self.head(x.flatten(1))


def _plain_layer(layer: nn.Module, member: int) -> nn.Module:
    """Torch's layer with the weights of one member."""
    if isinstance(layer, GatedUnit):
        return GatedUnit(
            _plain_layer(layer.of_inputs, member), _plain_layer(layer.of_state, member)
        )
    if isinstance(layer, StackedLinear):
        plain: nn.Module = nn.Linear(*layer.weight.shape[1:])
        state = {"weight": layer.weight[member].T, "bias": layer.bias[member, 0]}
    elif isinstance(layer, StackedConvolution):
        n_out, n_in = layer.weight.shape[1:3]
        plain = nn.Conv2d(n_in, n_out, 3, padding=1)
        state = {"weight": layer.weight[member], "bias": layer.bias[member]}
    elif isinstance(layer, StackedBatchNorm):
        kind = nn.BatchNorm2d if layer.of_images else nn.BatchNorm1d
        plain = kind(layer.weight.shape[1])
        state = {
            "weight": layer.weight[member],
            "bias": layer.bias[member],
            "running_mean": layer.mean[member],
            "running_var": layer.variance[member],
            "num_batches_tracked": torch.tensor(0),
        }
    else:
        return copy.deepcopy(layer)
    plain.load_state_dict({name: value.detach() for name, value in state.items()})
    return plain
