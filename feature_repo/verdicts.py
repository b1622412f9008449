"""Lets verdicts count for what is read online as soon as the lake knows them, as events do that the service pushes."""

from datetime import date

from feature_repo.lake import Lake
from feature_repo.push import push
from feature_repo.states import States


def push_verdicts(lake: Lake, states: States, *, first: date, last: date) -> int:
    """Push the fraud verdicts that became known on some days, and return how many; again, it changes nothing.

    What lies before the horizon of a state is there already. A verdict whose payment comes later counts from the next
    rebuild, as late payments do.
    """
    with lake.connect() as connection:
        known = lake.select("events", "labels", first=first, last=last)
        query = f"""
            SELECT known.*, merchant_id, amount FROM ({known}) AS known JOIN payments USING (event_id)
            WHERE event_table = 'payments' AND label = 'fraud' ORDER BY known_us, event_id
        """  # noqa: S608
        verdicts = connection.sql(query).to_arrow_table().to_pylist()
    push(states, (("labels", verdict) for verdict in verdicts))
    return len(verdicts)
