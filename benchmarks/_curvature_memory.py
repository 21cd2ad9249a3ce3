"""Print the peak memory of a ResNet-18's largest eigenvalues: ``ours`` or a peer's, how many."""

import resource
import sys

import torch
from _curvature_peers import TOP, Eigenthings
from _curvature_problems import batched, problem
from torch import nn

from sharpfit.curvature import hessian_spectrum

PRODUCTS = {1: 3, TOP: None}  # three for one value, as many as it takes for ten
STEPS = {1: 3, TOP: 66}  # the fewest that are right


def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


torch.set_num_threads(1)
# Trained no longer than to load everything: the peak before is part of the difference.
module, inputs, targets = problem("resnet", steps=0)
with torch.no_grad():
    module(inputs[:2])
before = peak()
count = int(sys.argv[2])
if sys.argv[1] == "ours":
    hessian_spectrum(
        *(module, nn.CrossEntropyLoss(), inputs, targets),
        **{"n_eigenvalues": count, "max_products": PRODUCTS[count]},
        **{"batch_size": 32, "random_state": 0},
    )
else:
    from hessian_eigenthings import lanczos

    operator = Eigenthings(module, batched(inputs, targets, 32)).operator
    lanczos(operator, k=count, max_iter=STEPS[count], which="LA", reorthogonalize=True, seed=0)
print(peak() - before)
