"""The candidate as an MLflow model ("models from code"): MLflow stores and runs this file; the bundle is its artifact.

Serving does not use it; it is for whoever finds a version in the registry and wants to try it.
"""

from pathlib import Path

import mlflow
import pandas as pd

from training.cascade import load


class DetectorModel(mlflow.pyfunc.PythonModel):
    """Events in, one calibrated probability column per label out."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Load the bundle."""
        self.scorer = load(Path(context.artifacts["bundle"]))

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Score events; a missing number or category is null."""
        rows = model_input.astype(object).where(model_input.notna(), None).to_dict("records")
        return pd.DataFrame(self.scorer.score(rows), columns=self.scorer.spec.labels, index=model_input.index)


mlflow.models.set_model(DetectorModel())
