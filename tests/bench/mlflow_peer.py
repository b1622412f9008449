"""The same scorer as an MLflow model, logged from this file, so that nothing is pickled."""

import os
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel

from training.scorer import Scorer


class Served(PythonModel):
    def load_context(self, context: object) -> None:  # noqa: ARG002
        self.model = Scorer.load(Path(os.environ["BENCH_BUNDLE"]))

    def predict(self, context, model_input, params=None) -> Any:  # type: ignore[no-untyped-def]  # noqa: ARG002
        return self.model.score(model_input.to_dict("records")).tolist()


def save_mlflow(folder: Path) -> None:
    mlflow.pyfunc.save_model(folder, python_model=__file__, pip_requirements=[])


mlflow.models.set_model(Served())
