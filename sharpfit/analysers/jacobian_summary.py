"""What a fit of a profiler says of a network's Jacobian over all rows."""

from typing import Any

from sharpfit.analysers.jacobian_space import AnalysedFunction
from sharpfit.analysers.row_norms import layer_summary, variation_near_rows
from sharpfit.analysers.row_profile import row_profile
from sharpfit.bridge import Problem
from sharpfit.curvature import Progress


def jacobian_summary(
    problem: Problem,
    function: AnalysedFunction,
    output: str,
    progress: Progress,
    **settings: Any,
) -> dict[str, Any]:
    """Compute all fitted attributes that follow from rows and network.

    Parameters
    ----------
    problem : Problem
    function : AnalysedFunction
        The space in which derivatives and distances are taken.
    output : {"logits", "probabilities", "margin", "loss"}
    progress : Progress
        Told of the parts: rows, layers, surroundings.
    **settings
        Passed to `sharpfit.jacobian.jacobian_norms` and its neighbours.

    Returns
    -------
    dict of str to object
        By name of the attribute; None where one does not exist without targets.
    """
    with progress.part("rows"):
        rows = row_profile(problem, function, output, **settings)
        summary = rows.summary(has_targets=problem.targets is not None)
    with progress.part("layers"):
        summary["layer_norms_"], summary["alignment_"] = layer_summary(problem, **settings)
    with progress.part("surroundings"):
        summary["local_variation_"] = variation_near_rows(
            function, output=varied_output(output), **settings
        )
    return summary


def varied_output(output: str) -> str:
    """Return the output whose local variation stands for that of any.

    Parameters
    ----------
    output : {"logits", "probabilities", "margin", "loss"}

    Returns
    -------
    {"logits", "probabilities"}
    """
    return "probabilities" if output == "probabilities" else "logits"
