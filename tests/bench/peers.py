"""What others would build around the same scorer with FastAPI and LitServe, each as its manual says, scoring inline.

Both read the bundle that `BENCH_BUNDLE` names; a request is `{"rows": [...]}`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

from training.scorer import Scorer


class Asked(BaseModel):
    rows: list[dict[str, Any]]


def fastapi_app() -> FastAPI:
    app, model = FastAPI(), Scorer.load(Path(os.environ["BENCH_BUNDLE"]))

    @app.post("/score")
    async def score(asked: Asked) -> dict[str, list[list[float]]]:
        return {"scores": model.score(asked.rows).tolist()}

    return app


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = Scorer.load(Path(os.environ["BENCH_BUNDLE"]))

    def decode_request(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        return request["rows"]

    def predict(self, rows: list[dict[str, Any]]) -> np.ndarray:
        return self.model.score(rows)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"scores": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(api_path="/score"), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
