"""Two processes that hold a shard each give what one process gives on all rows."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sharpfit.curvature import hessian_spectrum
from tests.curvature.reference import problem

ROOT = Path(__file__).parents[2]

WORKER = """
import sys
import torch
from torch import nn
from sharpfit.curvature import ConjugateOperator, HessianOperator, hessian_spectrum
from tests.curvature.reference import problem

rank, port = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group(
    "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
)
module, inputs, targets = problem("mlp-tanh", n_rows=11)
rows = slice(0, 4) if rank == 0 else slice(4, 11)
criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]).double())
weights = torch.linspace(0.5, 2, 11).double()
shard = (module, criterion, inputs[rows], targets[rows])
settings = {"n_eigenvalues": 4, "tol": 1e-8, "trace": True, "density": True, "random_state": 0}
result = hessian_spectrum(*shard, sample_weight=weights[rows], **settings)
print(*result.eigenvalues, result.gauss_newton_share, result.trace.value, *result.density.density)
for refused, reason in (
    (lambda: ConjugateOperator(*shard), "all rows in one process"),
    (lambda: hessian_spectrum(*shard, n_jobs=2), "outside the process group"),
):
    try:
        refused()
    except ValueError as error:
        assert reason in str(error)
    else:
        raise AssertionError(f"not refused: {reason}")
torch.distributed.destroy_process_group()
"""


def test_two_ranks_give_the_eigenvalues_of_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), port],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for rank in (0, 1)
    ]
    outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    module, inputs, targets = problem("mlp-tanh", n_rows=11)
    whole = hessian_spectrum(
        module,
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]).double()),
        inputs,
        targets,
        n_eigenvalues=4,
        tol=1e-8,
        trace=True,
        density=True,
        random_state=0,
        sample_weight=torch.linspace(0.5, 2, 11).double(),
    )
    for output in outputs:
        found = np.array(output.split(), dtype=float)
        np.testing.assert_allclose(found[:4], whole.eigenvalues, rtol=1e-6)
        np.testing.assert_allclose(found[4], whole.gauss_newton_share, rtol=1e-5)
        np.testing.assert_allclose(found[5], whole.trace.value, rtol=1e-6)
        np.testing.assert_allclose(found[6:], whole.density.density, atol=1e-6)
