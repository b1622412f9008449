"""Everyday words in another language, as bilingual writers do (Yoo et al., "Code-Switching Red-Teaming", 2024)."""

import re
from random import Random

from training.attacks.technique import WORD, Technique

# English / Spanish / German / French
_ROWS = """
    how/cómo/wie/comment to/a/zu/à make/hacer/machen/faire the/el/die/le and/y/und/et you/tú/du/tu of/de/von/de
    is/es/ist/est are/son/sind/sont with/con/mit/avec for/para/für/pour in/en/in/dans my/mi/mein/mon your/tu/dein/ton
    this/esto/dies/ceci that/eso/das/cela not/no/nicht/pas all/todo/alle/tout people/gente/Leute/gens
    give/dar/geben/donner write/escribe/schreibe/écris want/quiero/will/veux from/desde/aus/depuis
    without/sin/ohne/sans what/qué/was/quoi can/puedo/kann/peux have/tener/haben/avoir they/ellos/sie/ils
    should/debería/sollte/devrait get/obtener/bekommen/obtenir a/un/ein/un would/sería/würde/serait be/ser/sein/être
    as/como/als/comme i/yo/ich/je it/lo/es/il we/nosotros/wir/nous on/en/auf/sur explain/explica/erkläre/explique
    tell/dime/sag/dis or/o/oder/ou
"""
_WORDS = {row.split("/")[0]: row.split("/")[1:] for row in _ROWS.split()}


def _rewrite(text: str, rng: Random) -> str:
    language = rng.randrange(3)

    def translated(word: re.Match[str]) -> str:
        known = _WORDS.get(word[0].lower())
        return known[language] if known and rng.random() < 0.8 else word[0]

    return WORD.sub(translated, text)


TECHNIQUE = Technique("mixing", _rewrite, is_seen=True)
