"""The few values of the history in real loggers."""

import numpy as np
import pytest
from skorch.callbacks import MlflowLogger, TensorBoard

from sharpfit import NetworkClassifier, SharpnessMonitor

X = np.random.default_rng(0).normal(size=(40, 3))
LABELS = (X[:, 0] > 0).astype(int)
NAMES = ("sharpness", "stability_limit", "jacobian_max")


def fit(logger):
    monitor = SharpnessMonitor(every=1)
    # The monitor comes first: what it writes at the end of an epoch is there for the logger.
    callbacks = [("monitor", monitor), ("logger", logger)]
    NetworkClassifier(
        module__hidden=(4,), max_epochs=3, batch_size=-1, random_state=0, callbacks=callbacks
    ).fit(X, LABELS)
    return {name: [record[name] for record in monitor.records_[1:]] for name in NAMES}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_the_values(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        expected = fit(TensorBoard(writer, close_after_train=False))
    events = EventAccumulator(str(tmp_path)).Reload()
    for name, values in expected.items():
        (tag,) = [tag for tag in events.Tags()["scalars"] if tag.endswith(name)]
        np.testing.assert_allclose([event.value for event in events.Scalars(tag)], values, 1e-6)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_stores_the_values(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions prefer a data base
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.tracking.MlflowClient(tracking_uri=(tmp_path / "store").as_uri())
    experiment = client.create_experiment("watched", artifact_location=(tmp_path / "a").as_uri())
    run = client.create_run(experiment)
    expected = fit(MlflowLogger(run=run, client=client, log_on_batch_end=False))
    for name, values in expected.items():
        found = [metric.value for metric in client.get_metric_history(run.info.run_id, name)]
        np.testing.assert_allclose(found, values)
