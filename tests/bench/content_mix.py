"""`content_mix` as a training set, and TF-IDF with logistic regression on it, which a good engineer would try first."""

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tests.bench.harness import DATA, HOME, IS_SMALL
from training.benign import read_suite
from training.fit_config import FitConfig

LABELS = ["hate", "harassment", "self_harm", "sexual", "violence", "jailbreak_injection", "fraud_spam"]
LABELS += ["malware_cyber", "illicit_other", "toxic", "any_violation"]
KEPT = HOME / "bench" / "content"  # fits and predictions, by the digest of what they were made from
TAUGHT = ["homonyms", "security_work", "money_matters", "everyday"]  # benign suites to learn from
TAUGHT += ["harmless_targets", "other_peoples_lives", "odd_rules"]
HELD = ["safety_questions", "fiction_and_history", "counter_speech", "informal_english"]  # to set thresholds with
AVERAGE = FitConfig(
    network="average",
    members=["ngram", "encoder"],
    max_epochs=2 if IS_SMALL else 8,
    global_batch_size=512,
    hidden_size=256,
    dropout=0.2,
)
SMALL = {"train": 1500, "validation": 800, "calibration": 800, "test": 1500}


def read() -> pa.Table:
    """The rows with the columns of a training set; half of `validation`, and the held suites, are `calibration`."""
    rows = pq.read_table(DATA / "content_mix" / "data.parquet")
    ids = rows["id"].cast(pa.string()).to_pylist()
    halves = [
        split == "validation" and zlib.crc32(name.encode()) % 2 == 1
        for split, name in zip(rows["split"].to_pylist(), ids, strict=True)
    ]
    split = pc.if_else(pa.array(halves, pa.bool_()), "calibration", rows["split"].combine_chunks())
    labels = {label: rows[label].cast(pa.int8()) for label in LABELS}
    facts = {"event_id": ids, "split": split, "source": rows["source"], "kind": rows["kind"], "text": rows["text"]}
    table = pa.concat_tables([pa.table({**facts, **labels}), _held_suites()], promote_options="permissive")
    table = table.append_column("event_us", pa.array(np.zeros(len(table), np.int64)))
    table = table.append_column("sampling_probability", pa.array(np.ones(len(table))))
    return sample(table, SMALL) if IS_SMALL else table


def _held_suites() -> pa.Table:
    texts = [(name, text) for name in HELD for text in read_suite(name, None)]
    names, said = zip(*texts, strict=True)
    facts = {"event_id": [f"{name}-{at}" for at, (name, _) in enumerate(texts)], "split": ["calibration"] * len(texts)}
    verdicts = pa.array(np.zeros(len(texts), np.int8))
    return pa.table(
        {**facts, "source": names, "kind": ["prompt"] * len(texts), "text": said, **dict.fromkeys(LABELS, verdicts)}
    )


def sample(table: pa.Table, sizes: dict[str, int]) -> pa.Table:
    """A seeded draw of so many rows of some splits; the other splits stay whole."""
    generator, split = np.random.default_rng(0), table["split"].to_numpy()
    kept = [
        generator.permutation(np.flatnonzero(split == name))[: sizes.get(name)] for name in np.unique(split.astype(str))
    ]
    return table.take(pa.array(np.sort(np.concatenate(kept))))


def digest(*parts: object) -> str:
    """A name for what is made from these; a table counts by its rows' ids and splits."""
    text = [[p["event_id"].to_pylist(), p["split"].to_pylist()] if isinstance(p, pa.Table) else p for p in parts]
    return hashlib.sha256(json.dumps(text).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Tfidf:
    """Words and pairs, and 3 to 5 characters; C = 10, chosen on validation rows."""

    words: TfidfVectorizer
    characters: TfidfVectorizer
    models: dict[str, LogisticRegression | None]  # None: the training rows hold one verdict alone

    @classmethod
    def fit(cls, table: pa.Table, labels: list[str]) -> "Tfidf":
        train = table.filter(pc.equal(table["split"], "train"))
        texts = train["text"].to_pylist()
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, dtype=np.float32).fit(texts)
        characters = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=3, dtype=np.float32
        )
        made = cls(words, characters.fit(texts), {})
        features = made.features(texts)
        for label in labels:
            known = np.flatnonzero(train[label].is_valid().to_numpy())
            verdicts = train[label].take(pa.array(known)).to_numpy()
            model = LogisticRegression(C=10, solver="liblinear")
            made.models[label] = model.fit(features[known], verdicts) if len(set(verdicts)) > 1 else None
        return made

    def features(self, texts: list[str]) -> csr_matrix:
        return hstack([self.words.transform(texts), self.characters.transform(texts)]).tocsr()

    def logits(self, texts: list[str]) -> NDArray[np.float32]:
        """Logits [N, labels], in the order that they were fitted in."""
        features, none = self.features(texts), np.zeros(len(texts))
        columns = [model.decision_function(features) if model else none for model in self.models.values()]
        return np.column_stack(columns).astype(np.float32)


def tfidf_logits(table: pa.Table, event_ids: list[str], labels: list[str]) -> NDArray[np.float32]:
    """Logits of some rows by TF-IDF fitted on the training rows; kept, as the fit takes minutes."""
    path = KEPT / f"tfidf-{digest('tfidf', table, event_ids, labels)}.npy"
    if not path.exists():
        position = {name: at for at, name in enumerate(table["event_id"].to_pylist())}
        texts = table["text"].take(pa.array([position[name] for name in event_ids])).to_pylist()
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, Tfidf.fit(table, labels).logits(texts))
    return np.load(path)


def run_folder(name: str) -> Path:
    """Where a fit is kept."""
    return KEPT / name
