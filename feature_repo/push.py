"""Lets events count for whatever is read next, from any number of processes, each event once."""

import random
import time
from collections.abc import Iterable, Mapping, Sequence

from feature_repo.facts import Event, Slot, facts_of
from feature_repo.profile import Profile
from feature_repo.state import Fact, Shape, State
from feature_repo.states import Found, Move, States
from feature_repo.view import View
from feature_repo.windows import VIEWS

MAX_ROUNDS = 200  # of which in each at least one of those who write at once gets through
Kept = State | Profile


def push(states: States, events: Iterable[tuple[str, Event]]) -> None:
    """Let events of (table, event) count for whatever is read next; pushing one again changes nothing.

    Any number of processes may push at once: who finds that somebody else was faster reads again.
    """
    waiting: dict[Slot, dict[int, Fact]] = {}
    for table, event in events:
        for slot, fact in facts_of(table, event):
            waiting.setdefault(slot, {})[fact.id] = fact
    for number in range(MAX_ROUNDS):
        if not waiting:
            return
        time.sleep(random.uniform(0, 0.001 * min(number, 20)))
        moves = _moves(states, waiting)
        done = states.move(list(moves.values()))
        lost = {slot for slot, is_done in zip(moves, done, strict=True) if not is_done}
        waiting = {slot: facts for slot, facts in waiting.items() if slot in lost}
    raise TimeoutError(f"{len(waiting)} states were moved by others {MAX_ROUNDS} times in a row")


def _moves(states: States, waiting: Mapping[Slot, Mapping[int, Fact]]) -> dict[Slot, Move]:
    wanted = {slot: list(facts.values()) for slot, facts in waiting.items()}
    moves = {}
    for (slot, facts), found in zip(wanted.items(), states.find(wanted), strict=True):
        state = state_of(VIEWS[slot.view], found)
        taken = [fact for fact in facts if fact.id not in found.known and state.push(fact)]
        if taken:
            moves[slot] = moved(slot, state, found.mark, facts=taken)
    return moves


def state_of(view: View, found: Found) -> Kept:
    """The state that was found, or that of an entity without a past."""
    if found.body is None:
        return nothing(view)
    if view.template == "profile":
        return Profile.from_bytes(found.body)
    seen = memoryview(found.seen or b"").cast("q")
    return State.from_words(Shape(view), memoryview(found.body).cast("q"), seen)


def moved(slot: Slot, state: Kept, mark: bytes, *, facts: Sequence[Fact], forgotten: Sequence[int] = ()) -> Move:
    """A state as the store takes it."""
    body, seen = state.to_bytes()
    return Move(slot, mark, body, seen, facts, max(state.horizon_us, state.last_us), forgotten)


def nothing(view: View, horizon_us: int = 0) -> Kept:
    """The state of an entity without a past."""
    return Profile(horizon_us) if view.template == "profile" else State(Shape(view), horizon_us)
