"""The convolutional networks of the experiments, small enough for a CPU, and pixel shifts."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sharpfit.networks.interventions import Intervention


class VGG(nn.Sequential):
    """Pairs of 3x3 convolutions with batch norm, each followed by pooling; one dense layer.

    Parameters
    ----------
    n_outputs : int
        Number of classes.
    image : tuple of int
        Channels, height and width.
    width : int, default=8
        Channels of the first pair; the second has twice as many.
    dropout : float, default=0.0
        Probability of dropping a feature in front of the dense layer.
    """

    def __init__(
        self, n_outputs: int, image: tuple[int, int, int], width: int = 8, dropout: float = 0.0
    ) -> None:
        channels, height, columns = image
        layers: list[nn.Module] = []
        for n_in, n_out in ((channels, width), (width, 2 * width)):
            layers += [*_convolution(n_in, n_out), nn.ReLU()]
            layers += [*_convolution(n_out, n_out), nn.ReLU(), nn.MaxPool2d(2)]
        n_features = 2 * width * (height // 4) * (columns // 4)
        head = [nn.Flatten(), nn.Dropout(dropout), nn.Linear(n_features, n_outputs)]
        super().__init__(*layers, *head)


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm, added to the input or to a 1x1 convolution of it."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_convolution(n_in, n_out, stride), nn.ReLU(), *_convolution(n_out, n_out)
        )
        plain = n_in == n_out and stride == 1
        self.shortcut = (
            nn.Identity() if plain else nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features."""
        return self.activation(self.branch(x) + self.shortcut(x))


class ResNet(nn.Sequential):
    """A stem, residual blocks that double the channels and halve the image, and a mean of pixels.

    Parameters
    ----------
    n_outputs : int
        Number of classes.
    image : tuple of int
        Channels, height and width.
    width : int, default=8
        Channels of the first block.
    n_blocks : int, default=2
        Number of blocks.
    dropout : float, default=0.0
        Probability of dropping a feature in front of the dense layer.
    """

    def __init__(
        self,
        n_outputs: int,
        image: tuple[int, int, int],
        width: int = 8,
        n_blocks: int = 2,
        dropout: float = 0.0,
    ) -> None:
        layers: list[nn.Module] = [*_convolution(image[0], width), nn.ReLU()]
        n_in = width
        for block in range(n_blocks):
            n_out = width * 2**block
            layers.append(ResidualBlock(n_in, n_out, stride=1 if block == 0 else 2))
            n_in = n_out
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)]
        super().__init__(*layers, *head, nn.Linear(n_in, n_outputs))


class PixelShift(Intervention):
    """Train on images moved by a random number of pixels, the same for all rows of a batch.

    Parameters
    ----------
    distance : int, default=1
        Largest shift in each direction; 0 trains on the images as they are.
    image : tuple of int, default=(1, 14, 14)
        Channels, height and width of the images that the rows hold.
    """

    def __init__(self, distance: int = 1, *, image: tuple[int, int, int] = (1, 14, 14)) -> None:
        self.distance = distance
        self.image = image

    def objective(self, module, objective, inputs, targets, loss):
        """Return the loss of shifted images."""
        if self.distance == 0:
            return objective(inputs, targets, loss)
        down, right = torch.randint(2 * self.distance + 1, (2,)).tolist()
        images = functional.pad(inputs.reshape(-1, *self.image), [self.distance] * 4)
        _, height, columns = self.image
        shifted = images[..., down : down + height, right : right + columns]
        return objective(shifted.reshape(inputs.shape), targets, loss)


def _convolution(n_in: int, n_out: int, stride: int = 1) -> list[nn.Module]:
    """Return a convolution without bias, which the batch norm behind it has."""
    return [
        nn.Conv2d(n_in, n_out, 3, padding=1, stride=stride, bias=False),
        nn.BatchNorm2d(n_out),
    ]
