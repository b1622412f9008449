"""What signing a bundle would change, in sentences: against what is served now."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from serving.bundle import Bundle, read
from serving.cuts import Move
from serving.deployment import Shelves, detectors, servable
from serving.ledger import Ledger
from serving.people import People
from serving.release import find

_READ = {"release": "thresholds.json", "policy": "policy.json", "hotfix": "hotfix.json"}
_NOT_SHOWN = ("num_rows", "observed", "bound", "recall_bound")  # what a proof saw differs each time and changes nothing


def difference(bundle: Bundle, served: Bundle | None) -> list[str]:
    """One sentence per value that differs; the evaluation card says what that means for quality."""
    if bundle.kind == "hotfix":
        return [Move.model_validate(move).in_words() for move in _content(bundle)["moves"]]
    if served is None:
        return ["nothing of this name is served now"]
    before, after = (dict(_flat(_content(one))) for one in (served, bundle))
    found = [
        f"{name}: {_word(before.get(name))} becomes {_word(after.get(name))}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    return found or [f"its {_READ[bundle.kind]} is that of what is served now"]


def in_place_of(ledger: Ledger, people: People, shelves: Shelves, bundle: Bundle) -> Bundle | None:
    """What is served now where a bundle would be; None where nothing is."""
    if bundle.kind == "hotfix":
        return None  # it says itself what it changes
    names = {bundle.name} if bundle.kind == "release" else set(detectors(ledger))
    for now in (servable(ledger, people, shelves, name) for name in sorted(names)):
        if now and bundle.kind == "release":
            return find(shelves.releases, now.release)
        if now and (served := find(shelves.policies, now.policy)).name == bundle.name:
            return served
    return None


def _content(bundle: Bundle) -> Any:
    return json.loads(read(bundle, _READ[bundle.kind]))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            if key not in _NOT_SHOWN:
                yield from _flat(one, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for i, one in enumerate(value, start=1):
            yield from _flat(one, f"{name}.{i}")
    else:
        yield name, value


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "nothing" if value is None else str(value)
