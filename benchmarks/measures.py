"""Measures that other packages compute as well: agreement, and ratios of times.

``OMP_NUM_THREADS=1 python benchmarks/measures.py [mlp] [cnn] [MEASURE ...]``. Agreement is in
float64, peers at tight tolerances. Times are CPU seconds in float32, everything from the bare
network on, paired within one repetition; each peer at the loosest of its settings that is right to
1e-5, or the most accurate one. Peers: see `_curvature_peers`; SciPy's `eigsh` drives curvlinops.
"""

import copy
import sys
import time
import warnings
from functools import partial

import numpy as np
import torch
from curvature import problem
from curvlinops import GGNLinearOperator, HessianLinearOperator
from hessian_eigenthings import (
    GGNOperator,
    HessianOperator,
    lanczos,
    supervised_forward,
    supervised_loss,
    supervised_loss_of_output,
)
from pyhessian import hessian
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.func import functional_call, jacrev, vmap

from sharpfit.bridge import Problem
from sharpfit.measures import MEASURES, TrainedNetwork
from sharpfit.objective import as_sample_loss

REPETITIONS = 5


def ours(name, module, inputs, targets):
    """Take a measure of a bare network, nothing kept from before."""
    labels = targets.numpy()
    rows = Problem(
        estimator=None,
        refitted=False,
        network=None,
        module=module,
        loss=as_sample_loss(nn.CrossEntropyLoss()),
        objective=None,
        inputs=inputs,
        targets=targets,
        sample_weight=None,
        task="classification",
        classes=np.unique(labels),
        labels=labels,
        preprocessing=(),
        target_transformer=None,
        raw_inputs=inputs,
    )
    return MEASURES[name].function(TrainedNetwork(rows))


def curvlinops_top(kind, tolerance, module, inputs, targets):
    parameters, data = list(module.parameters()), [(inputs, targets)]
    operator = kind(module, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False)
    operator = operator.to_scipy()
    start = np.random.default_rng(0).standard_normal(operator.shape[0]).astype(operator.dtype)
    return eigsh(operator, 1, which="LA", tol=tolerance, v0=start)[0][0]


def eigenthings_top(kind, steps, module, inputs, targets):
    data = [(inputs, targets)]
    if kind is GGNOperator:
        loss = supervised_loss_of_output(nn.functional.cross_entropy)
        operator = GGNOperator(module, data, supervised_forward, loss)
    else:
        operator = HessianOperator(module, data, supervised_loss(nn.functional.cross_entropy))
    result = lanczos(operator, k=1, max_iter=steps, which="LA", seed=0, tol=1e-9)
    return float(np.asarray(result.eigenvalues)[0])


def pyhessian_top(tolerance, module, inputs, targets):
    operator = hessian(module, nn.CrossEntropyLoss(), data=(inputs, targets), cuda=False)
    return operator.eigenvalues(maxIter=1000, tol=tolerance, top_n=1)[0][0]


def backpack_trace(extension, attribute, module, inputs, targets):
    from backpack import backpack, extend

    extended = extend(module)
    loss = extend(nn.CrossEntropyLoss())(extended(inputs), targets)
    with backpack(extension()):
        loss.backward()
    return float(sum(getattr(parameter, attribute).sum() for parameter in module.parameters()))


def curvlinops_form(module, inputs, targets):
    parameters, data = list(module.parameters()), [(inputs, targets)]
    operator = GGNLinearOperator(
        module, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False
    )
    weights = nn.utils.parameters_to_vector(parameters).detach()
    return float(weights @ (operator @ weights))


def functorch_complexity(module, inputs, targets):
    parameters = {name: value.detach() for name, value in module.named_parameters()}

    def outputs(row):
        return functional_call(module, parameters, (row[None],))[0]

    parts = [vmap(jacrev(outputs))(part).square().sum() for part in inputs.split(128)]
    return float(torch.stack(parts).sum() / len(inputs))


def peers():
    """By measure: the peers' names and their calls at several settings, loose to tight."""
    from backpack.extensions import DiagGGNExact, DiagHessian

    tolerances, steps = (1e-2, 1e-3, 1e-4, 1e-6, 1e-8), (6, 8, 10, 12, 16, 24, 40)
    return {
        "sharpness": {
            "curvlinops with eigsh": [
                partial(curvlinops_top, HessianLinearOperator, t) for t in tolerances
            ],
            "hessian-eigenthings": [partial(eigenthings_top, HessianOperator, k) for k in steps],
            "pyhessian": [partial(pyhessian_top, t) for t in tolerances],
        },
        "gauss_newton_sharpness": {
            "curvlinops with eigsh": [
                partial(curvlinops_top, GGNLinearOperator, t) for t in tolerances
            ],
            "hessian-eigenthings": [partial(eigenthings_top, GGNOperator, k) for k in steps],
        },
        "hessian_trace": {"backpack": [partial(backpack_trace, DiagHessian, "diag_h")]},
        "gauss_newton_trace": {
            "backpack": [partial(backpack_trace, DiagGGNExact, "diag_ggn_exact")]
        },
        "fisher_rao_norm": {"curvlinops": [curvlinops_form]},
        "geometric_complexity": {"torch.func": [functorch_complexity]},
    }


def seconds(function, *data):
    start = time.process_time()
    function(*data)
    return time.process_time() - start


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    known = peers()
    asked = sys.argv[1:]
    for network in [name for name in asked if name not in known] or ("mlp", "cnn"):
        module, inputs, targets = problem(network, None if network == "mlp" else 128)
        precise = (module.double(), inputs.double(), targets)
        exact = copy.deepcopy(precise[0])
        single = copy.deepcopy(module).float()
        inputs = inputs.float()
        for measure in [name for name in asked if name in known] or known:
            found = ours(measure, exact, *precise[1:])
            for peer, settings in known[measure].items():
                accurate = settings[-1](copy.deepcopy(exact), *precise[1:])
                difference = abs(found / accurate - 1)
                chosen = next(
                    (
                        call
                        for call in settings
                        if abs(call(copy.deepcopy(single), inputs, targets) / accurate - 1) <= 1e-5
                    ),
                    settings[-1],
                )
                ratios = []
                for _ in range(REPETITIONS):
                    own = seconds(partial(ours, measure), copy.deepcopy(single), inputs, targets)
                    other = seconds(chosen, copy.deepcopy(single), inputs, targets)
                    ratios.append(own / other)
                low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
                error = abs(ours(measure, single, inputs, targets) / accurate - 1)
                print(
                    f"{network} {measure:24s} {peer:22s} differs by {difference:.1e} "
                    f"(float32 {error:.1e}); time ratio {middle:.2f} [{low:.2f}, {high:.2f}]",
                    flush=True,
                )


if __name__ == "__main__":
    main()
