from pathlib import Path

import pyarrow as pa
import pytest

from tests.training.conftest import behaviour_spec, payments, write_run
from training.data import DetectorData
from training.policy import Promise


@pytest.mark.parametrize(("dtype", "is_refused"), [(pa.int64(), True), (pa.float64(), True), (pa.string(), False)])
def test_a_promise_per_number_is_refused_before_anything_is_trained(
    tmp_path: Path, dtype: pa.DataType, *, is_refused: bool
) -> None:
    changes = {"slices": ["num_devices"], "promises": {"fraud": Promise(limit=0.2, per="num_devices")}}
    spec = behaviour_spec().model_copy(update=changes)
    rows = payments(200).append_column("num_devices", pa.array([1, 2] * 100).cast(dtype))
    path = write_run(tmp_path / "run", spec, rows=rows) / "training_set.parquet"

    if not is_refused:
        DetectorData(path, spec, cache=tmp_path)
        return
    with pytest.raises(ValueError, match=rf"promises.fraud.per is 'num_devices', of type {dtype} in the training set"):
        DetectorData(path, spec, cache=tmp_path)
