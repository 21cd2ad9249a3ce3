"""Print the peak memory of the largest eigenvalue of a ResNet-18, for ours or a peer's."""

import resource
import sys

import torch
from _curvature_peers import Eigenthings
from _curvature_problems import batched, problem
from torch import nn

from sharpfit.curvature import hessian_spectrum

PRODUCTS = 3


def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


torch.set_num_threads(1)
# Trained no longer than to load everything: the peak before is part of the difference.
module, inputs, targets = problem("resnet", steps=0)
with torch.no_grad():
    module(inputs[:2])
before = peak()
if sys.argv[1] == "ours":
    hessian_spectrum(
        *(module, nn.CrossEntropyLoss(), inputs, targets),
        **{"n_eigenvalues": 1, "batch_size": 32, "max_products": PRODUCTS, "random_state": 0},
    )
else:
    from hessian_eigenthings import lanczos

    operator = Eigenthings(module, batched(inputs, targets, 32)).operator
    lanczos(operator, k=1, max_iter=PRODUCTS, which="LA", seed=0)
print(peak() - before)
