"""The reference module the networks build when none is given."""

from collections.abc import Sequence

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


class MultilayerPerceptron(nn.Sequential):
    """Fully connected network with one activation between its linear layers.

    Parameters
    ----------
    in_features : int
        Number of input features.
    n_outputs : int
        Number of outputs: logits of a classifier, predictions of a regressor.
    hidden : int or sequence of int, default=(64,)
        Widths of the hidden layers, from the input to the output. An empty sequence makes a
        linear model.
    activation : {"relu", "gelu", "silu", "softplus", "tanh", "identity"} or type, \
            default="relu"
        The activation after each hidden layer, by name or as a module class without arguments.
    dropout : float, default=0.0
        Probability of dropping a hidden unit while training, in ``[0, 1)``.
    dtype : torch.dtype, default=None
        Floating dtype of the weights; torch's default dtype if None.

    Examples
    --------
    >>> MultilayerPerceptron(4, 3, hidden=(8,), activation="tanh")
    MultilayerPerceptron(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): Tanh()
      (2): Linear(in_features=8, out_features=3, bias=True)
    )
    """

    def __init__(
        self,
        in_features: int,
        n_outputs: int,
        hidden: int | Sequence[int] = (64,),
        activation: str | type[nn.Module] = "relu",
        dropout: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        if isinstance(activation, str):
            if activation not in ACTIVATIONS:
                raise ValueError(
                    f"activation={activation!r} is unknown; use one of {sorted(ACTIVATIONS)} or a "
                    "module class."
                )
            activation = ACTIVATIONS[activation]
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout!r} must lie in [0, 1).")
        widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
        if any(width < 1 for width in widths):
            raise ValueError(f"hidden={hidden!r} must hold positive widths.")

        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(in_features, width, dtype=dtype), activation()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            in_features = width
        super().__init__(*layers, nn.Linear(in_features, n_outputs, dtype=dtype))

    def __getitem__(self, index):
        # Slicing a Sequential calls the class's constructor, whose signature differs here.
        layers = list(self._modules.values())[index]
        return nn.Sequential(*layers) if isinstance(index, slice) else layers

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Return the outputs of rows ``X``, shape ``(n, n_outputs)``."""
        return super().forward(X)
