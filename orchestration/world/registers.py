"""In which registers the roles of the world write, and in which ones they are answered."""

import numpy as np

from orchestration.world.grammar import Grammar
from orchestration.world.population import Role

ROUGH = len(Role)  # the mix of honest accounts who break the rules now and then
# How often each role writes in which register; what is missing to 1 is chat.
MIXES: dict[int, dict[str, float]] = {
    Role.HONEST: {
        "coding": 0.29, "business": 0.22, "list_questions": 0.02, "scary_cyber": 0.035, "scary_fraud": 0.03,
        "scary_people": 0.025, "scary_life": 0.02, "rude": 0.006,
        "jailbreak_twin": 0.02, "spam_twin": 0.02, "dual_cyber": 0.008, "dual_spam": 0.006, "dual_jailbreak": 0.006,
        "jailbreak": 0.001, "fraud_spam": 0.001, "malware": 0.001, "harassment": 0.002, "illicit": 0.001,
        "hate": 0.001, "self_harm": 0.001, "sexual": 0.001, "violence": 0.001,
    },
    ROUGH: {
        "coding": 0.15, "business": 0.1, "scary_cyber": 0.05, "scary_people": 0.05, "dual_cyber": 0.03,
        "dual_spam": 0.02, "jailbreak": 0.04, "fraud_spam": 0.03, "malware": 0.05, "harassment": 0.07, "illicit": 0.02,
        "hate": 0.05, "self_harm": 0.02, "sexual": 0.04, "violence": 0.03, "rude": 0.06,
    },
    Role.ACCOUNT_FARM: {
        "business": 0.25, "spam_twin": 0.1, "dual_spam": 0.15, "fraud_spam": 0.25, "list_questions": 0.05,
    },
    Role.TRIAL_ABUSE: {
        "coding": 0.35, "business": 0.25, "list_questions": 0.1, "scary_cyber": 0.03, "dual_cyber": 0.02,
        "malware": 0.01,
    },
    Role.JAILBREAK_PROBING: {
        "coding": 0.15, "jailbreak_twin": 0.15, "dual_jailbreak": 0.08, "jailbreak": 0.28, "jailbreak_malware": 0.08,
        "dual_cyber": 0.05, "illicit": 0.02,
    },
    Role.SCRAPING: {"list_questions": 0.55, "coding": 0.2, "business": 0.1, "scary_cyber": 0.02},
}  # fmt: skip


def draw_registers(mix: np.ndarray, grammar: Grammar, rng: np.random.Generator) -> np.ndarray:
    """Draw a register per prompt from the mix of its role."""
    shares = np.zeros((len(Role) + 1, len(grammar.registers)))
    for role in range(len(shares)):
        chosen = MIXES.get(role, MIXES[Role.HONEST])
        for name, share in {"chat": 1 - sum(chosen.values()), **chosen}.items():
            shares[role, grammar.code(name)] = share
    bounds = shares.cumsum(axis=1)[:, :-1]
    return (rng.random(len(mix))[:, None] > bounds[mix]).sum(axis=1)


def draw_answers(registers: np.ndarray, grammar: Grammar, rng: np.random.Generator) -> np.ndarray:
    """Draw the register of the completion to each prompt."""
    widest = max(len(r.answers) for r in grammar.registers)
    table = np.zeros((len(grammar.registers), widest), np.int64)
    for i, register in enumerate(grammar.registers):
        codes = [grammar.code(name) for name in register.answers] or [0]
        table[i] = [codes[k % len(codes)] for k in range(widest)]
    return table[registers, rng.integers(0, widest, len(registers))]
