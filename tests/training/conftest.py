"""Small real run folders: generated training sets with the columns of the training-set contract."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from training.detector import DetectorSpec, Gate, Ratio
from training.fit_config import FitConfig

NOUNS = ["parcel", "invoice", "garden", "recipe", "server", "ticket", "poem", "river", "lesson", "budget"]
SPAM = ["jackpot", "giveaway", "unclaimed", "verify", "wallet"]
INSULTS = ["blockhead", "dimwit", "numbskull"]
SPLITS = ["train", "validation", "calibration", "test"]


def behaviour_spec(**fit: object) -> DetectorSpec:
    config = {
        "network": "behaviour",
        "num_starts": 2,
        "max_epochs": 6,
        "global_batch_size": 128,
        "hidden_size": 32,
        **fit,
    }
    return DetectorSpec(
        name="payment_fraud",
        description="generated payments",
        owners=["team:tests"],
        policy="payments",
        events="payments",
        labels=["fraud", "trial_abuse"],
        feature_service="payment_v2",
        numbers=["amount", "mean_amount_7d", "num_payments_1d"],
        categories=["plan"],
        ratios=[Ratio(name="amount_to_mean", numerator="amount", denominator="mean_amount_7d")],
        gate=Gate(),
        fit=FitConfig.model_validate(config),
    )


def text_spec(**fit: object) -> DetectorSpec:
    config = {"network": "ngram", "max_epochs": 6, "global_batch_size": 128, "hidden_size": 32, **fit}
    return DetectorSpec(
        name="content",
        description="generated texts",
        owners=["team:tests"],
        policy="content",
        events="requests",
        labels=["fraud_spam"],
        feature_service="content_v1",
        text="text",
        fit=FitConfig.model_validate({"num_buckets": 1 << 12, **config}),
    )


def tiny_encoder(folder: Path) -> str:
    """A BERT of two small layers with random weights, stored as any pretrained encoder is."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *NOUNS, *SPAM, *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    return str(folder)


def _facts(num_rows: int) -> dict[str, list[object]]:
    split = np.repeat(SPLITS, np.array([6, 1, 1, 2]) * num_rows // 10)
    return {
        "event_id": [f"e{i}" for i in range(num_rows)],
        "event_us": list(range(num_rows)),
        "account_id": [f"a{i % 97}" for i in range(num_rows)],
        "sampling_probability": [1.0, 0.5] * (num_rows // 2),
        "split": split.tolist(),
    }


def payments(num_rows: int = 2000) -> pa.Table:
    """Fraud is a payment far above the account's own mean; some values and verdicts are not known."""
    rng = np.random.default_rng(5)
    mean = rng.lognormal(3, 1, num_rows)
    ratio = rng.lognormal(0, 1, num_rows)
    is_fraud = (ratio > 3) ^ (rng.random(num_rows) < 0.02)
    plan = rng.choice(["free", "paid", "trial"], num_rows)
    abuse = (plan == "trial") & (rng.random(num_rows) < 0.8)
    is_known = rng.random(num_rows) < 0.7
    return pa.table(
        {
            **_facts(num_rows),
            "amount": mean * ratio,
            "mean_amount_7d": pa.array(mean, mask=rng.random(num_rows) < 0.1),
            "num_payments_1d": rng.poisson(2, num_rows),
            "plan": plan,
            "fraud": pa.array(is_fraud.astype(np.int8)),
            "trial_abuse": pa.array(abuse.astype(np.int8), mask=~is_known),
        }
    )


def texts(num_rows: int = 2000) -> pa.Table:
    """Spam holds one of a few words among many others."""
    rng = np.random.default_rng(5)
    is_spam = rng.random(num_rows) < 0.3
    words = [[*rng.choice(NOUNS, 6), *rng.choice(SPAM, 1)] if spam else [*rng.choice(NOUNS, 7)] for spam in is_spam]
    labels = pa.array((is_spam ^ (rng.random(num_rows) < 0.02)).astype(np.int8))
    return pa.table({**_facts(num_rows), "text": [" ".join(row) for row in words], "fraud_spam": labels})


def write_run(run_dir: Path, spec: DetectorSpec, *, rows: pa.Table) -> Path:
    run_dir.mkdir(parents=True)
    (run_dir / "detector.json").write_text(spec.model_dump_json(), encoding="utf-8")
    pq.write_table(rows, run_dir / "training_set.parquet")
    return run_dir


@pytest.fixture
def behaviour_run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "behaviour", behaviour_spec(), rows=payments())


@pytest.fixture
def text_run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "text", text_spec(), rows=texts())


def sourced_texts(num_rows: int = 4000) -> pa.Table:
    """Spam and insults from four sources, of which one holds little else than spam; some verdicts are not known."""
    rng = np.random.default_rng(6)
    source = rng.choice(["mail", "forum", "chat", "honeypot"], num_rows, p=[0.3, 0.3, 0.3, 0.1])
    is_spam = rng.random(num_rows) < np.where(source == "honeypot", 0.8, 0.25)
    is_insult = rng.random(num_rows) < 0.15
    words = [
        [
            *rng.choice(NOUNS, rng.integers(4, 20)),
            *(rng.choice(SPAM, 1 + (where == "honeypot")) if spam else []),
            *(rng.choice(INSULTS, 1) if insult else []),
        ]
        for spam, insult, where in zip(is_spam, is_insult, source, strict=True)
    ]
    is_known = rng.random(num_rows) < 0.9
    return pa.table(
        {
            **_facts(num_rows),
            "source": source,
            "kind": rng.choice(["prompt", "message"], num_rows),
            "text": [" ".join(rng.permutation(row)) for row in words],
            "fraud_spam": pa.array((is_spam ^ (rng.random(num_rows) < 0.02)).astype(np.int8)),
            "harassment": pa.array(is_insult.astype(np.int8), mask=~is_known),
        }
    )
