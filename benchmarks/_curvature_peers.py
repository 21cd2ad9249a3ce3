"""The same jobs with the curvature packages this one is measured against."""

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

TOP = 10


class Curvlinops:
    """curvlinops-for-pytorch, eigenvalues by SciPy's eigsh."""

    name = "curvlinops"

    def __init__(self, module, batches):
        from curvlinops import HessianLinearOperator

        parameters = list(module.parameters())
        self.operator = HessianLinearOperator(
            module, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False
        )

    def product(self, vector):
        return self.operator @ vector

    def top(self, steps):
        """Largest eigenvalues; `steps` is eigsh's tolerance, None its default."""
        from scipy.sparse.linalg import eigsh

        tolerance = 0.0 if steps is None else steps
        operator = self.operator.to_scipy()
        start = np.random.default_rng(0).standard_normal(operator.shape[0]).astype(np.float32)
        values = eigsh(operator, TOP, which="LA", tol=tolerance, v0=start, ncv=2 * TOP + 1)[0]
        return np.sort(values)[::-1]

    settings = (1e-2, 3e-3, 1e-3, 1e-4)


class Eigenthings:
    """hessian-eigenthings with its Lanczos."""

    name = "hessian-eigenthings"

    def __init__(self, module, batches):
        from hessian_eigenthings import HessianOperator, supervised_loss

        loss = supervised_loss(nn.functional.cross_entropy)
        self.operator = HessianOperator(module, batches, loss)

    def product(self, vector):
        return self.operator.matvec(vector)

    def top(self, steps):
        """Largest eigenvalues; `steps` is the number of Lanczos steps, None its default."""
        from hessian_eigenthings import lanczos

        # Beyond 50 steps its default is not to reorthogonalise, and copies of values appear.
        result = lanczos(
            self.operator,
            k=TOP,
            max_iter=steps,
            reorthogonalize=None if steps is None else True,
            which="LA",
            seed=0,
        )
        return np.sort(np.asarray(result.eigenvalues))[::-1]

    def prefixes(self, steps):
        """Yield numbers of steps and the largest eigenvalues after them, from one run."""
        from hessian_eigenthings.algorithms.lanczos import lanczos_tridiagonal

        generator = torch.Generator().manual_seed(0)
        start = torch.randn(self.operator.size, generator=generator)
        found = lanczos_tridiagonal(self.operator, start, steps)
        own, links = found.alphas.double(), found.betas.double()
        for count in range(TOP, steps + 1):
            inner = links[: count - 1]
            matrix = torch.diag(own[:count]) + torch.diag(inner, 1) + torch.diag(inner, -1)
            yield count, torch.linalg.eigvalsh(matrix).flip(0)[:TOP].numpy()

    settings = (16, 20, 24, 28, 32, 36, 40, 50, 60)


class PyHessian:
    """pyhessian on a loader; on one batch it keeps the graph of the gradient."""

    name = "pyhessian"

    def __init__(self, module, batches):
        from pyhessian import hessian

        data = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
        self.operator = hessian(module, nn.CrossEntropyLoss(), cuda=False, **data)
        self.shapes = [parameter.shape for parameter in module.parameters()]
        self.single = len(batches) == 1

    def product(self, vector):
        from pyhessian.utils import hessian_vector_product

        sizes = [shape.numel() for shape in self.shapes]
        parts = [p.view(s) for p, s in zip(vector.split(sizes), self.shapes, strict=True)]
        if self.single:
            found = hessian_vector_product(self.operator.gradsH, self.operator.params, parts)
        else:
            found = self.operator.dataloader_hv_product(parts)[1]
        return torch.cat([part.reshape(-1) for part in found])


def backpack_trace(module, inputs, targets):
    """Return the trace of the Hessian from BackPACK's exact diagonal."""
    from backpack import backpack, extend
    from backpack.extensions import DiagHessian

    extended = extend(module)
    loss = extend(nn.CrossEntropyLoss())(extended(inputs), targets)
    with backpack(DiagHessian()):
        loss.backward()
    return float(sum(parameter.diag_h.sum() for parameter in module.parameters()))


def probed_traces(operator):
    """Yield the probe methods of curvlinops: a name, a function of the products, their numbers."""
    from curvlinops import hutchinson_trace, hutchpp_trace, xtrace

    # hessian-eigenthings and pyhessian have Hutchinson's method alone.
    yield "XTrace", partial(xtrace, operator), (20, 40, 60, 80, 120)
    yield "Hutch++", partial(hutchpp_trace, operator), (30, 60, 120, 180, 240)
    yield "Hutchinson", partial(hutchinson_trace, operator), (100, 300)


def kernel_eigenvalues(module, inputs):
    """Eigenvalues of ``B B^T`` from the neural tangent kernel of torch.func."""
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    outputs = module(inputs).detach()
    probabilities = outputs.softmax(1)
    roots = probabilities.sqrt()
    root = torch.diag_embed(roots) - probabilities[:, :, None] * roots[:, None]
    count, width = outputs.shape
    kernel = torch.zeros(count, width, count, width, dtype=outputs.dtype)
    for name, value in parameters.items():

        def call(part, row, name=name):
            return functional_call(module, {**parameters, name: part}, (row[None],))[0]

        # One tensor and some rows at a time, so that the Jacobian fits memory.
        jacobian = torch.empty(count, width, value.numel(), dtype=outputs.dtype)
        for start in range(0, count, 10):
            rows = inputs[start : start + 10]
            found = vmap(jacrev(call), (None, 0))(value, rows)
            jacobian[start : start + 10] = found.flatten(2)
        flat = jacobian.flatten(0, 1)
        kernel += (flat @ flat.T).view(kernel.shape)
    weighted = torch.einsum("ica,icjd,jdb->iajb", root, kernel, root) / count
    return torch.linalg.eigvalsh(weighted.reshape(count * width, count * width))
