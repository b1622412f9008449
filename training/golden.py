"""Golden answers: generated records and the exact probabilities a bundle gives them, so that whoever loads it can tell.

The records are made from the encoder alone; no user's words are in them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from training.cascade import Cascade, load
from training.encoder import Encoder
from training.scorer import Scorer

NUM_GOLDEN = 16
TOLERANCE = 1e-6  # another processor may round the last bit of a float32 otherwise; a changed weight shows far above
# An encoder in int8 rounds what each layer reads to 8 bits, so such a bit grows: by 0.0076 with other fusions.
ROUNDED = 0.05
LONG = 1500  # words: several passages, of several windows each
WORDS = ("account", "please", "write", "code", "free", "ignore", "hello", "bread", "now", "über", "价格", "k1ck")


class GoldenMismatch(ValueError):
    """A bundle does not give the answers it was sealed with."""


def examples(encoder: Encoder) -> list[dict[str, Any]]:
    """Sixteen records that reach every column: known and missing numbers, seen and unseen categories, some words."""
    rng = np.random.default_rng(0)
    derived = {ratio.name for ratio in encoder.ratios}
    sources = {name for ratio in encoder.ratios for name in (ratio.numerator, ratio.denominator)}
    rows: list[dict[str, Any]] = []
    for at in range(NUM_GOLDEN):
        row: dict[str, Any] = {name: float(rng.lognormal(2, 2)) for name in sorted(sources)}
        for name, scale in encoder.numbers.items():
            if name not in derived:
                row[name] = None if rng.random() < 0.2 else float(rng.choice(scale.values))
        for name, vocabulary in encoder.categories.items():
            row[name] = str(rng.choice([*vocabulary, "never seen"]))
        if encoder.reader is not None:
            row[encoder.reader.column] = " ".join(rng.choice(WORDS, at if at < NUM_GOLDEN - 1 else LONG))
        rows.append(row)
    return rows


def write_golden(bundle: Path) -> None:
    """Write golden.json from what the bundle answers now; to be called last, once its calibration is in place."""
    scorer = load(bundle)
    rows = examples(scorer.encoder)
    golden = {"rows": rows, "probabilities": scorer.score(rows).tolist()}
    (bundle / "golden.json").write_text(json.dumps(golden, ensure_ascii=False), encoding="utf-8")


def check_golden(bundle: Path, scorer: Scorer | Cascade) -> float:
    """The largest difference from the golden answers; raises GoldenMismatch where it is above TOLERANCE.

    With an encoder in int8 they are equal to the bit on a processor like the one that sealed it; elsewhere to ROUNDED.
    """
    golden = json.loads((bundle / "golden.json").read_text(encoding="utf-8"))
    difference = float(np.abs(scorer.score(golden["rows"]) - np.array(golden["probabilities"])).max())
    limit = ROUNDED if scorer.spec.fit.has_frozen_encoder else TOLERANCE
    if not difference <= limit:
        raise GoldenMismatch(f"{bundle}: golden answers differ by {difference:.1e}; the limit is {limit:.0e}")
    return difference
