"""Which columns of a training set are names, that a promise may be kept by, and which are numbers."""

import pyarrow as pa

from training.detector import DetectorSpec


def is_number(dtype: pa.DataType) -> bool:
    """Whether evaluation slices a column by the thirds of its values."""
    return pa.types.is_floating(dtype) or dtype in (pa.int32(), pa.int64())


def check_promises(spec: DetectorSpec, schema: pa.Schema) -> None:
    """Refuse a promise per number: serving looks up the value itself, where evaluation knows thirds alone."""
    for label, promise in spec.promises.items():
        if promise.per in schema.names and is_number(dtype := schema.field(promise.per).type):
            raise ValueError(
                f"detector.promises.{label}.per is {promise.per!r}, of type {dtype} in the training set of "
                f"{spec.name!r}; it must be a column of names"
            )
