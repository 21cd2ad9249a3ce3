"""What a fitted profiler tells about rows when asked."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from sharpfit.analysers.arguments import as_dtype
from sharpfit.analysers.delegation import StatingEstimator
from sharpfit.analysers.jacobian_space import (
    AnalysedFunction,
    analysed_function,
    check_features,
    check_request,
)
from sharpfit.analysers.jacobian_summary import varied_output
from sharpfit.analysers.row_norms import as_seed, output_norms
from sharpfit.analysers.row_profile import RowProfile, row_profile
from sharpfit.bridge import Problem, as_problem
from sharpfit.jacobian import (
    Certificate,
    Coverage,
    LocalVariation,
    coverage,
    held_out_maximum,
    lipschitz_certificate,
    local_variation,
    margin_gradients,
)
from sharpfit.jacobian.surroundings import in_plain_mode
from sharpfit.theory.intrinsic_dimension import IntrinsicDimension, intrinsic_dimension


class JacobianAnalyses(StatingEstimator):
    """Base of `JacobianProfiler`: its analyses of rows, of the fit or others."""

    estimator_: Any
    output: Any
    space: Any
    dtype: Any
    tol: float
    batch_size: Any
    memory_budget: int
    random_state: Any
    verbose: int

    def profile(self, X: Any, y: Any = None) -> RowProfile:
        """Return norms and margins of rows and the slopes between them.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.
        y : array-like of shape (n,) or (n, k), optional
            The network's targets.

        Returns
        -------
        RowProfile
        """
        check_request(self.output, self.space, y)
        return row_profile(*self._problem(X, y), self.output, **self._settings())

    def plot(self, X: Any, y: Any = None, ax: Any = None, *, kind: str = "norms") -> Any:
        """Draw the norms at rows, their margins, the slopes between them, or coverage.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.
        y : array-like of shape (n,), optional
            The network's targets, to tell classes and misclassified rows.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones by default.
        kind : {"norms", "margins", "slopes", "coverage"}, default="norms"
            What to draw.

        Returns
        -------
        JacobianDisplay
            Draws the other kinds from the same numbers.
        """
        from sharpfit.displays.jacobian import JacobianDisplay, check_kind

        check_kind(kind)
        return JacobianDisplay.from_estimator(self, X, y).plot(ax, kind=kind)

    def attribution(self, X: Any) -> NDArray[np.floating]:
        """Return how fast the margin moves with each input feature, at every row.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.

        Returns
        -------
        ndarray of shape (n, ...)
            Gradient of the predicted class's margin, in `space`; for regressors with one output,
            of the prediction.
        """
        problem, function = self._problem(X)
        targets = None
        if problem.task == "regression":
            if function.outputs().shape[1] > 1:
                raise ValueError("attribution is for classifiers and regressors with one output")
            targets = torch.ones(len(function.inputs)).to(function.inputs.device, torch.int64)
        _, gradients = margin_gradients(
            function.module,
            function.inputs,
            targets=targets,
            batch_size=self.batch_size,
            memory_budget=self.memory_budget,
        )
        # numpy has no bfloat16.
        return (gradients.float() if gradients.dtype is torch.bfloat16 else gradients).cpu().numpy()

    def variation(self, X: Any, **settings: Any) -> LocalVariation:
        """Estimate how much the Jacobian varies between and around rows.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.
        **settings
            `n_neighbours`, `n_steps`, `n_directions` and `radius` of `local_variation`.

        Returns
        -------
        sharpfit.jacobian.LocalVariation
        """
        _, function = self._problem(X)
        return local_variation(
            function.module,
            function.inputs,
            output=varied_output(self.output),
            **self._settings(),
            **settings,
        )

    def coverage(self, X: Any, *, confidence: float = 0.95) -> Coverage:
        """Measure how much of the distribution lies near a random half of the rows as given.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Independent rows. Distances are between them as given: where preprocessing stands in
            front of the network, ``space="input"`` gives norms in the same units.
        confidence : float, default=0.95
            Of each of its statements.

        Returns
        -------
        sharpfit.jacobian.Coverage
        """
        check_is_fitted(self, "estimator_")
        check_features(self, X, reset=False)
        return coverage(X, confidence=confidence, random_state=as_seed(self.random_state))

    def intrinsic_dimension(self, X: Any, **settings: Any) -> IntrinsicDimension:
        """Estimate the intrinsic dimension of rows, in `space`.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows.
        **settings
            `estimator`, `confidence` and `n_subsamples` of the function of this name.

        Returns
        -------
        sharpfit.theory.intrinsic_dimension.IntrinsicDimension
        """
        _, function = self._problem(X)
        points = function.inputs.detach().double().cpu().numpy()
        return intrinsic_dimension(points, random_state=as_seed(self.random_state), **settings)

    def certificate(self, X: Any, *, method: str = "product") -> Certificate:
        """Prove a Lipschitz constant of the logits or predictions, in `space`.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Rows, of which only the shape matters.
        method : {"product", "semidefinite"}, default="product"
            As in `sharpfit.jacobian.lipschitz_certificate`.

        Returns
        -------
        sharpfit.jacobian.Certificate
            Its `tightness` of the largest slope found (of `profile`, with ``output="logits"``)
            tells how much it may give away.
        """
        _, function = self._problem(X)
        shape = tuple(function.inputs.shape[1:])
        return lipschitz_certificate(function.module, shape, method=method)

    def held_out_maximum(
        self, X: Any, y: Any = None, *, confidence: float = 0.95
    ) -> tuple[float, float]:
        """Bound how often the Jacobian of `output` is larger than at fresh rows.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Independent rows on which the network was neither trained nor selected.
        y : array-like of shape (n,) or (n, k), optional
            Their targets; needed for ``output="loss"`` only.
        confidence : float, default=0.95
            Of the statement.

        Returns
        -------
        largest_norm, mass : float
            With the confidence, a further row has a larger norm with probability at most `mass`.
        """
        problem, function = self._problem(X, y)
        norms = output_norms(problem, function, self.output, **self._settings())
        return held_out_maximum(norms.spectral, confidence=confidence)

    @in_plain_mode
    def _problem(self, X: Any, y: Any = None) -> tuple[Problem, AnalysedFunction]:
        check_is_fitted(self, "estimator_")
        check_features(self, X, reset=False)
        problem = as_problem(self.estimator_, X, y, prefit=True, dtype=as_dtype(self.dtype))
        return problem, analysed_function(problem, self.space)

    def _settings(self) -> dict[str, Any]:
        return {
            "tol": self.tol,
            "batch_size": self.batch_size,
            "memory_budget": self.memory_budget,
            "random_state": as_seed(self.random_state),
            "verbose": self.verbose,
        }
