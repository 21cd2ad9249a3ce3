"""Training on convex combinations of rows."""

import torch
from torch import Tensor, nn

from sharpfit.networks.datasets import reordered
from sharpfit.networks.interventions.intervention import (
    Intervention,
    Loss,
    Objective,
    check_not_negative,
)


class Mixup(Intervention):
    """Train on convex combinations of pairs of rows and of their losses.

    Every batch draws one ``t`` from a Beta(`alpha`, `alpha`) distribution and one permutation of
    its rows. The module sees ``t x_i + (1 - t) x_j``, the loss is ``t l(z, y_i) +
    (1 - t) l(z, y_j)``. For cross-entropy this is the loss of the mixed label distribution; for
    the squared error it is that of the mixed target up to a constant. Sample and class weights
    stay with the labels they belong to.

    Parameters
    ----------
    alpha : float, default=0.2
        Strength of mixing: 0 does not mix, 1 draws ``t`` uniformly.

    Notes
    -----
    Zhang, Cisse, Dauphin and Lopez-Paz (2018), "mixup: Beyond Empirical Risk Minimization". The
    recorded training loss and scores on training rows are those of the mixed rows.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sharpfit.networks import NetworkClassifier
    >>> from sharpfit.networks.interventions import Mixup
    >>> X, y = load_iris(return_X_y=True)
    >>> NetworkClassifier(intervention=Mixup(0.4), random_state=0).fit(X, y).score(X, y) > 0.9
    True
    """

    def __init__(self, alpha: float = 0.2) -> None:
        self.alpha = alpha

    def check(self) -> None:
        """Refuse an `alpha` out of range."""
        check_not_negative(self, "alpha")

    def objective(
        self,
        module: nn.Module,
        objective: Objective,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of mixed rows; see `Intervention.objective`."""
        if self.alpha == 0:
            return objective(inputs, targets, loss)
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        order = torch.randperm(len(inputs))
        partners = inputs[order.to(inputs.device)]

        def mixed_loss(outputs: Tensor, targets: Tensor) -> Tensor:
            of_partners = loss(outputs, reordered(targets, order))
            return share * loss(outputs, targets) + (1 - share) * of_partners

        return objective(share * inputs + (1 - share) * partners, targets, mixed_loss)
