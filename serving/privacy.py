"""What a policy says about people, applied where an event enters: ids it wants hashed are hashed before anything else.

Features, log and lake then know the entity by its hash alone, so what was learned offline is found online. The key
stays in the home; whoever holds it can tell whether a hash is of an id they know, which is how an account is forgotten.
"""

from collections.abc import Mapping
from typing import Any

from serving.vault import Vault
from training.policy import Privacy

_PREFIX = "h_"
_LENGTH = 40  # hex digits, 160 bits; an id of the lake holds at most 64 characters


def pseudonym(value: str, vault: Vault) -> str:
    """The id by which an entity is known where a policy hashes it."""
    return _PREFIX + vault.digest(value)[:_LENGTH]


def as_known(event: Mapping[str, Any], privacy: Privacy, vault: Vault | None) -> Mapping[str, Any]:
    """The event with the ids that its policy wants hashed."""
    hashed = [name for name in privacy.hashed if event.get(name) is not None]
    if not hashed:
        return event
    assert vault is not None, "a policy hashes ids, and there is no key to hash them with"
    return {**event, **{name: pseudonym(event[name], vault) for name in hashed}}
