"""Shows training texts once more in disguise, harmful and harmless alike, so that a disguise says nothing by itself."""

import numpy as np
import pyarrow as pa

from training.attacks.registry import TECHNIQUES
from training.detector import DetectorSpec


def augment(rows: pa.Table, spec: DetectorSpec) -> pa.Table:
    """The rows, and behind them a share of them disguised by a seen technique each; the same for the same seed."""
    if spec.text is None or not spec.fit.disguised_share:
        return rows
    shown = [technique for technique in TECHNIQUES.values() if technique.is_seen and not technique.violates]
    rng = np.random.default_rng(spec.fit.seed)
    chosen = rows.take(np.flatnonzero(rng.random(len(rows)) < spec.fit.disguised_share))
    which = rng.integers(0, len(shown), len(chosen))
    texts = chosen[spec.text].to_pylist()
    disguised = [shown[at].apply(text, seed=spec.fit.seed) for at, text in zip(which, texts, strict=True)]
    column = pa.array(disguised, rows.schema.field(spec.text).type)
    return pa.concat_tables([rows, chosen.set_column(rows.column_names.index(spec.text), spec.text, column)])
