"""What a search for better settings of the fit may try; values are checked where they enter."""

from typing import Self

from pydantic import model_validator

from training.fit_config import FitConfig
from training.policy import Contract


class Range(Contract):
    """From `low` to `high`, both included; `is_log` spreads what is tried evenly over orders of magnitude."""

    low: float
    high: float
    is_log: bool = False

    @model_validator(mode="after")
    def _order(self) -> Self:
        if not self.low < self.high or (self.is_log and self.low <= 0):
            least = "greater than 0 and less" if self.is_log else "less"
            raise ValueError(f"low is {self.low}; it must be {least} than high, which is {self.high}")
        return self


Choices = list[int | float | str]


class Search(Contract):
    """How many variants of the fit are tried, how many at a time, and what each setting may be.

    The first of them is the fit as the detector states it, so that the best is never worse on validation.
    """

    num_trials: int = 20
    num_parallel: int = 2
    space: dict[str, Range | Choices] = {
        "learning_rate": Range(low=5e-4, high=2e-2, is_log=True),
        "dropout": Range(low=0.0, high=0.5),
        "hidden_size": Range(low=32, high=256, is_log=True),
    }

    def check(self, fit: FitConfig) -> None:
        """Raise ValueError where a value of the space makes a fit that is none."""
        for field in ("num_trials", "num_parallel"):
            if getattr(self, field) < 1:
                raise ValueError(f"search.{field} is {getattr(self, field)}; it must be at least 1")
        for name, tried in self.space.items():
            if name not in FitConfig.model_fields:
                raise ValueError(f"search.space names {name!r}; it must be a field of fit")
            if isinstance(tried, list) and (stated := getattr(fit, name)) not in tried:
                raise ValueError(f"search.space.{name} is {tried}; it must hold the fit's own {stated}")
            if isinstance(tried, Range) and getattr(fit, name) is None:
                raise ValueError(f"search.space.{name} is a range, and fit.{name} is null; state where to begin")
            for value in [tried.low, tried.high] if isinstance(tried, Range) else tried:
                FitConfig.model_validate({**fit.model_dump(), name: value})
