"""A witness remembers the head of a ledger where whoever writes the ledger does not reach, such as a git repository.

A chain shows every alteration but a cut tail. A head that was committed, pushed and perhaps signed elsewhere shows that
one too, and proves when the ledger had come how far.
"""

import subprocess
from pathlib import Path

from serving.canonical import canonical
from serving.durable import replace_file
from serving.ledger import Head, Ledger


def verify(ledger: Ledger, witnesses: list[Path]) -> Head:
    """The head of a ledger that is whole and holds what each witness remembers; raises LedgerAltered otherwise."""
    for path in witnesses:
        if not path.exists():
            raise ValueError(f"witness {path} does not exist; `mews ledger witness` makes one")
    return Ledger(ledger.path, witnesses=witnesses).verify()


def remember(ledger: Ledger, path: Path) -> Head:
    """Write the head to a file, and commit it where that lies in a git work tree.

    Raises LedgerAltered, and changes nothing, where the ledger no longer holds what the file remembers.
    """
    head = verify(ledger, [path] if path.exists() else [])
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, canonical(vars(head)) + b"\n")
    if _git(path, "rev-parse", "--is-inside-work-tree") == 0:
        message = f"ledger: entry {head.number}, {head.hash}"
        if _git(path, "add", "--", path.name) or _git(path, "commit", "--quiet", "-m", message, "--", path.name):
            _require_committed(path)
    return head


def _require_committed(path: Path) -> None:
    """A head that was committed before needs no second commit; anything else is a failure."""
    if _git(path, "diff", "--quiet", "HEAD", "--", path.name):
        raise ValueError(f"git could not commit {path.name}; is there an author, and no hook that refuses it?")


def _git(path: Path, *command: str) -> int:
    return subprocess.run(["git", "-C", path.parent, *command], capture_output=True, check=False).returncode
