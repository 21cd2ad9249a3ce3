"""What a bound assumes, and whether it holds."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Assumption"]


@dataclass(frozen=True)
class Assumption:
    """One assumption of a bound.

    Attributes
    ----------
    status : {"holds", "assumed", "violated"}
        Proved or checked; taken on trust; or known to fail, so that the number is an estimate.
    reason : str
        Why.
    remedy : str
        What to do where it does not hold.
    """

    status: Literal["holds", "assumed", "violated"]
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}" + (f" ({self.remedy})" if self.remedy else "")
