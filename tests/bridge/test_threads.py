"""Networks that train in one thread while another one analyses."""

import threading

import numpy as np
import torch

from sharpfit.bridge import as_problem
from sharpfit.networks import NetworkClassifier


def test_an_analysis_does_not_change_a_training_beside_it():
    X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    settings = {"max_epochs": 40, "lr": 0.1, "batch_size": 8, "random_state": 0}
    alone = NetworkClassifier(**settings).fit(X, y)
    other = NetworkClassifier(max_epochs=1, random_state=1).fit(X, y)
    beside = NetworkClassifier(**settings)
    training = threading.Thread(target=beside.fit, args=(X, y))
    training.start()
    while training.is_alive():
        as_problem(other, X, y, prefit=True)
    training.join()
    for ours, theirs in zip(beside.module_.parameters(), alone.module_.parameters(), strict=True):
        assert torch.equal(ours, theirs)
