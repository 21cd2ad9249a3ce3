"""What is known of the Jacobians of PyTorch's own layers, in evaluation mode."""

from torch import Tensor, nn

# Their Jacobian is diagonal.
ELEMENTWISE = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.RReLU,
    nn.SELU,
    nn.Sigmoid,
    nn.SiLU,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)
# They at most rename entries.
IDENTITIES = (
    nn.AlphaDropout,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.FeatureAlphaDropout,
    nn.Flatten,
    nn.Identity,
    nn.Unflatten,
)
# They are the same affine map at every sample.
AFFINE = (
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)


def is_plain(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Say whether a layer is of one of the kinds and does what that kind does.

    Parameters
    ----------
    layer : torch.nn.Module
    kinds : tuple of type

    Returns
    -------
    bool
        False for subclasses, and where hooks or a replaced ``forward`` may change the result.
    """
    hooked = layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer)
    return type(layer) in kinds and not hooked


class RowsFlattened(nn.Module):
    """A layer whose outputs are flattened to one vector a row.

    Parameters
    ----------
    layer : torch.nn.Module
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs of shape (n, k)."""
        outputs: Tensor = self.layer(inputs)
        return outputs.reshape(len(outputs), -1)
