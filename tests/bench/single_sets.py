"""Every source of `content_mix` by itself, on its test rows, beside what was published about the set it comes from."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from training.metrics import Floats
from training.predictions import Predictions

FEWEST = 10  # violations, and others, that a ranking is measured on
PUBLISHED = {
    ("tweeteval_hate", "hate"): "macro F1 .366 SVM, .506 fastText, .564 BERTweet (TweetEval)",
    ("tweeteval_offensive", "toxic"): "macro F1 .523 SVM, .734 fastText, .805 RoBERTa, .822 TimeLMs (TweetEval)",
    ("edos_sexism", "hate"): "macro F1 .875, the best of 84 teams (SemEval-2023 task 10)",
    ("sms_spam", "fraud_spam"): "83.1 % caught at 0.2 % of ham, SVM (Almeida et al. 2011, own split)",
    ("tweet_hate_offensive", "toxic"): "F1 .90 over three classes, LR (Davidson et al. 2017, cross-validated)",
    ("jailbreak_responses", "any_violation"): "accuracy .962, RoBERTa-large (GPTFuzzer, own split)",
}


def rows(test: Predictions, probabilities: Floats, threshold: float) -> Iterator[dict[str, Any]]:
    """Of each source and label with both verdicts, the metrics; of a source with one verdict, what is flagged of it."""
    sources = test.slices["source"].astype(str)
    for source in np.unique(sources):
        of_source = sources == source
        judged = [name for name in test.labels if (_counts(test, name, of_source) >= FEWEST).all()]
        for label in judged or ["any_violation"]:
            column = test.labels.index(label)
            known = of_source & (test.verdicts[:, column] >= 0)
            scores, truth = probabilities[known, column], test.verdicts[known, column] == 1
            found = _metrics(scores, truth) if judged else {}
            flagged = (probabilities[of_source, test.labels.index("any_violation")] >= threshold).mean()
            counts = {"violations": int(truth.sum()), "others": int((~truth).sum())}
            yield {"source": source, "label": label, **counts, **found, "flagged": float(flagged)}


def _counts(test: Predictions, label: str, keep: NDArray[np.bool_]) -> NDArray[np.intp]:
    verdicts = test.verdicts[keep, test.labels.index(label)]
    return np.array([(verdicts == 1).sum(), (verdicts == 0).sum()])


def _metrics(scores: Floats, truth: NDArray[np.bool_]) -> dict[str, float]:
    return {
        "average_precision": float(average_precision_score(truth, scores)),
        "auc": float(roc_auc_score(truth, scores)),
        "macro_f1": float(f1_score(truth, scores >= 0.5, average="macro")),
    }


def show(found: list[dict[str, Any]]) -> None:
    """Print the rows; `flagged` is the share of the whole source at the released threshold of `any_violation`."""
    names = ["source", "label", "violations", "others", "average_precision", "auc", "macro_f1", "flagged"]
    table = Table(*names, "published", title="single sets")
    for one in found:
        cells = [one.get(name, "") for name in names]
        texts = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells]
        table.add_row(*texts, PUBLISHED.get((one["source"], one["label"]), ""))
    Console(width=220).print(table)
