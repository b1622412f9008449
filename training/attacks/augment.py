"""Shows training texts once more in disguise, harmful and harmless alike, so that a disguise says nothing by itself.

Half of the disguised texts also stand between harmless texts of the training set: what surrounds a violation must not
hide it, and what usually comes from a harmless source must not prove harmlessness. A disguise that breaks a rule by
itself is shown with that label, so that it is not taken for another violation.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.attacks.registry import TECHNIQUES
from training.detector import DetectorSpec

_SURROUNDED = 0.5
_FEWEST_BENIGN = 50  # texts that break no rule; fewer would be learned by heart
_LONGEST_BENIGN = 400  # characters taken of one


def augment(rows: pa.Table, spec: DetectorSpec) -> pa.Table:
    """The rows, and behind them a share of them disguised by a seen technique each; the same for the same seed."""
    if spec.text is None or not spec.fit.disguised_share:
        return rows
    rng = np.random.default_rng(spec.fit.seed)
    chosen = rows.take(np.flatnonzero(rng.random(len(rows)) < spec.fit.disguised_share))
    seen = [technique for technique in TECHNIQUES.values() if technique.is_seen]
    which = [seen[at] for at in rng.integers(0, len(seen), len(chosen))]
    pairs = zip(which, chosen[spec.text].to_pylist(), strict=True)
    disguised = [technique.apply(text, seed=spec.fit.seed) for technique, text in pairs]
    texts = _surround(disguised, _benign(rows, spec), rng)
    shown = _replace(chosen, spec.text, pa.array(texts, rows.schema.field(spec.text).type))
    for label in spec.labels:
        is_violated = pa.array([label in technique.violates for technique in which])
        shown = _replace(shown, label, pc.if_else(is_violated, pa.scalar(1, shown[label].type), shown[label]))
    return pa.concat_tables([rows, shown])


def _replace(rows: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, column)


def _surround(texts: list[str], benign: list[str], rng: np.random.Generator) -> list[str]:
    if len(benign) < _FEWEST_BENIGN:
        return texts
    is_surrounded = rng.random(len(texts)) < _SURROUNDED
    around = rng.integers(0, len(benign), (len(texts), 2))
    return [
        f"{benign[before]}\n{text}\n{benign[after]}" if surrounded else text
        for text, surrounded, (before, after) in zip(texts, is_surrounded, around, strict=True)
    ]


def _benign(rows: pa.Table, spec: DetectorSpec) -> list[str]:
    """Texts of which it is known that they break no rule at all."""
    is_benign = np.all([pc.fill_null(pc.equal(rows[label], 0), False).to_numpy() for label in spec.labels], axis=0)
    return pc.utf8_slice_codeunits(rows[spec.text].filter(is_benign), 0, _LONGEST_BENIGN).to_pylist()
