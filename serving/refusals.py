"""What was refused is kept in the ledger as evidence, but polling cannot fill it."""

import logging
from collections.abc import Sequence

from serving.ledger import Entry, Ledger, Page

_MOST_PER_DIGEST = 20  # until something else happens to the digest
_log = logging.getLogger(__name__)


def record_refusal(ledger: Ledger, subject: str, digest: str, reason: str) -> None:
    """Keep that something was refused, once per reason until something else happens to the digest."""
    if not _is_recorded(ledger.entries(), digest, reason):
        with ledger.writing() as page:
            record(page, subject, digest, reason)


def record(page: Page, subject: str, digest: str, reason: str) -> None:
    """Keep a refusal while the ledger's pen is held."""
    _log.warning("refused %s %s: %s", subject, digest[:12], reason)
    if not _is_recorded(page.entries, digest, reason):
        page.append("refused", {"subject": subject, "digest": digest, "reason": reason})


def _is_recorded(entries: Sequence[Entry], digest: str, reason: str) -> bool:
    num_refusals = 0
    for entry in reversed(entries):
        if entry.body.get("digest") != digest:
            continue
        if entry.kind != "refused":
            return False
        num_refusals += 1
        if entry.body["reason"] == reason or num_refusals == _MOST_PER_DIGEST:
            return True
    return False
