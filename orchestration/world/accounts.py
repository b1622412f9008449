"""The accounts table of a day: a row for each signup, and one for each account that was active."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestration.world.population import DOMAINS, PLANS, Role
from orchestration.world.rows import HOUR_US, Day, Happened, addresses, campaigns, choose, happened, names

KINDS = ("signup", "daily")
MISUSE = ("account_farm", "jailbreak_probing", "scraping", "trial_abuse")


def accounts_of(day: Day, events: list[Happened]) -> Happened:
    """Signups, and at the end of the day a row per account that made a request or a payment."""
    rng = day.stream("accounts")
    signed_up = np.flatnonzero(day.accounts["signup_us"] >= day.start_us)
    active = np.flatnonzero(pc.is_in(names("a", day.accounts["number"]), value_set=_active(events)).to_numpy(False))
    position = np.concatenate([signed_up, active])
    kind = np.repeat([0, 1], [len(signed_up), len(active)])
    evening_us = day.start_us + ((23.5 + 0.49 * rng.random(len(active))) * HOUR_US).astype(np.int64)
    accounts, role = day.accounts[position], day.cast.role[position]
    columns = {
        "account_id": names("a", accounts["number"]),
        "kind": choose(KINDS, kind),
        "ip": addresses(accounts["home_ip"]),
        "device_id": names("d", accounts["device"]),
        "card_id": pc.if_else(pa.array(accounts["payments_per_day"] > 0.1), names("k", accounts["card"]), None),
        "email_domain": choose(DOMAINS, accounts["domain"]),
        "plan": choose(PLANS, accounts["plan"]),
    }
    lasting = np.where(accounts["role"] == Role.HONEST, np.where(kind == 1, role, 0), accounts["role"])
    truth = {label: (lasting == Role[label.upper()]).astype(np.int8) for label in MISUSE}
    wave = np.where(accounts["role"] == Role.HONEST, day.cast.wave[position], accounts["wave"])
    facts = {**truth, "campaign": campaigns(lasting, wave), "stratum": choose(KINDS, kind)}
    event_us = np.concatenate([day.accounts["signup_us"][signed_up], evening_us])
    return happened("accounts", day, event_us, columns=columns, truth=facts)


def _active(events: list[Happened]) -> pa.Array:
    ids = pa.chunked_array([chunk for each in events for chunk in each.rows["account_id"].chunks], pa.string())
    return pc.unique(ids)
