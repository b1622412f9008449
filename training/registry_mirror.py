"""Keeps the model registry saying what the ledger says: tags, description and alias are display, put back when moved.

It remembers what it wrote, in a file that the registry's users do not reach: what differs from that and from what the
ledger says was changed by somebody else.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from training.policy import Contract
from training.registry import shortened

CHAMPION = "champion"


class Story(Contract):
    """What the page of one model version must say."""

    version: str
    tags: dict[str, str]
    text: str
    card: str


def mirror(name: str, stories: list[Story], *, champion: str | None, tracking_uri: str, memory: Path) -> list[str]:
    """Write what differs, and name what somebody else had changed. `champion` is the version that is served, if any."""
    client = mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    before, written = _remembered(memory), dict[str, Any]()
    moved: list[str] = []
    for story in stories:
        with _unless_deleted():
            moved += _version(client, name, story, before.get(story.version, {}))
            written[story.version] = story.tags
    with _unless_deleted():
        champion = champion if champion in written else None
        moved += _alias(client, name, champion, before.get("champion"))
        written["champion"] = champion
    memory.parent.mkdir(parents=True, exist_ok=True)
    partial = memory.with_suffix(".partial")
    partial.write_text(json.dumps(written, indent=1), encoding="utf-8")
    partial.replace(memory)
    return moved


@contextmanager
def _unless_deleted() -> Iterator[None]:
    """What was deleted, or never registered here, hides nothing else; the ledger stands."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _remembered(memory: Path) -> dict[str, Any]:
    """What was written at the last look; a file that cannot be read remembers nothing."""
    try:
        found = json.loads(memory.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _alias(client: Any, name: str, champion: str | None, written: str | None) -> Iterator[str]:
    found = client.get_registered_model(name).aliases.get(CHAMPION)
    found = None if found is None else str(found)
    if found == champion:
        return
    if champion is None:
        client.delete_registered_model_alias(name, CHAMPION)
    else:
        client.set_registered_model_alias(name, CHAMPION, champion)
    if found != written:
        back = f"it is put back to {champion or 'nothing'}"
        yield f"{name}: alias {CHAMPION} was moved to {found or 'nothing'} by hand; {back}"


def _version(client: Any, name: str, story: Story, written: dict[str, str]) -> Iterator[str]:
    found = client.get_model_version(name, story.version)
    for key, value in story.tags.items():
        if found.tags.get(key) == value:
            continue
        client.set_model_version_tag(name, story.version, key, value)
        if (key in found.tags or key in written) and found.tags.get(key) != written.get(key):
            yield f"{name} version {story.version}: tag {key} was changed by hand; it is put back"
    description = shortened(_page(found.run_id, story))
    if found.description != description:
        client.update_model_version(name, story.version, description=description)


def _page(run_id: str, story: Story) -> str:
    """The card, with what the ledger says right below its title."""
    title, _, rest = story.card.partition("\n")
    plots = f"[All plots and slices](#/runs/{run_id}/artifacts/card.html)"
    return f"{title}\n\n{story.text}\n\n{plots}\n{rest}"
