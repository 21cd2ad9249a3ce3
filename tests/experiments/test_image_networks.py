"""The networks and the augmentation of the experiments, and their polite script for GPUs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

image_networks = pytest.importorskip("benchmarks.experiments.image_networks")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("image", [(1, 8, 8), (1, 14, 14), (3, 32, 32)])
@pytest.mark.parametrize("kind", ["VGG", "ResNet"])
def test_networks_take_images_of_these_sizes(kind, image):
    network = getattr(image_networks, kind)(10, image, width=4)
    assert network(torch.randn(3, *image)).shape == (3, 10)
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())


def test_a_residual_block_adds_its_branch_to_its_input():
    block = image_networks.ResidualBlock(4, 4, stride=1).eval()
    rows = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(rows), torch.relu(rows + block.branch(rows)))


@pytest.mark.parametrize("flat", [False, True])
def test_pixel_shift_moves_all_images_of_a_batch_alike(flat):
    image = (2, 5, 4)
    rows = torch.randn(3, *image)
    seen = []

    def objective(inputs, targets, loss):
        seen.append(inputs.reshape(-1, *image))
        return None, None

    torch.manual_seed(0)
    intervention = image_networks.PixelShift(1, image=image)
    for _ in range(60):
        intervention.objective(None, objective, rows.flatten(1) if flat else rows, None, None)
    padded = np.pad(rows.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    possible = [padded[:, :, i : i + 5, j : j + 4] for i in range(3) for j in range(3)]
    found = [[np.array_equal(s.numpy(), p) for p in possible] for s in seen]
    assert all(sum(hits) == 1 for hits in found)
    assert np.any(found, axis=0).all()  # each of the nine shifts occurs


@pytest.mark.skipif(torch.cuda.is_available(), reason="would train")
def test_the_script_for_gpus_says_that_there_is_none(tmp_path):
    pytest.importorskip("mlxtend")
    script = ROOT / "benchmarks" / "experiments" / "resnet_cifar.py"
    process = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "No CUDA device here, so nothing is trained" in process.stdout
