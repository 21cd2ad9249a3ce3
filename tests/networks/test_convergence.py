"""The rule by which a run counts as not finished."""

import numpy as np
import pytest

from sharpfit.networks.convergence import convergence_problem, epoch_losses


def test_decline_that_matters_is_reported():
    epochs = np.arange(50)
    assert convergence_problem(np.exp(-epochs / 5)) is None
    assert "still falling" in convergence_problem(np.exp(-epochs / 40))
    assert "still falling" in convergence_problem(1 - epochs / 100)
    # The share of the whole decline counts, not the decline.
    assert convergence_problem(1e6 * np.exp(-epochs / 5)) is None
    assert "still falling" in convergence_problem(1e-6 * (1 - epochs / 100))


def test_threshold_is_five_per_cent_of_the_decline():
    # 10 at first, then b in the fourth and 0 in the last fifth: b / 10 of the decline is late.
    run = lambda late: [10.0] * 6 + [late] * 2 + [0.0] * 2
    assert convergence_problem(run(0.49)) is None
    assert "by 0.51 per 2 epochs" in convergence_problem(run(0.51))


def test_short_flat_and_growing_runs_are_not_judged():
    assert convergence_problem(np.linspace(1, 0, 9)) is None
    assert convergence_problem(np.ones(50)) is None
    assert convergence_problem(np.linspace(0, 1, 50)) is None
    assert convergence_problem([]) is None
    assert convergence_problem(np.linspace(1, 0, 50), judge_trend=False) is None


@pytest.mark.parametrize("judge_trend", [True, False])
def test_not_finite(judge_trend):
    problem = convergence_problem([1.0, np.inf, np.nan], judge_trend=judge_trend)
    assert "became inf in epoch 2" in problem


def test_batches_count_by_their_size():
    batches = [
        {"train_loss": 1.0, "train_batch_size": 3},
        {"train_loss": 5.0, "train_batch_size": 1},
        {"valid_loss": 9.0, "valid_batch_size": 1},
    ]
    interrupted = {"batches": [{}]}
    assert epoch_losses([{"batches": batches}, interrupted]) == [2.0]
