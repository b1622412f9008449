"""Letters of other scripts that look like Latin ones (Boucher et al., "Bad Characters", arXiv 2106.09898)."""

from random import Random

from training.attacks.technique import Technique, some_letters

_ROWS = """
    aаɑα bЬƅ cсϲᴄ dԁꓒ eеҽ gɡց hһհ iіıɩ jјϳ kκк lӏⅼ mⅿ nոn oоοօ
    pрρ qԛզ rгᴦ sѕꜱ uυս vνѵ wԝᴡ xхⅹ yуγ zᴢ AАΑ BВΒ CСϹ EЕΕ
    HНΗ IІΙ KКΚ MМΜ NΝ OОΟ PРΡ SЅ TТΤ XХΧ YҮΥ ZΖ
"""
_LOOK_ALIKES = {row[0]: row[1:] for row in _ROWS.split()}


def _rewrite(text: str, rng: Random) -> str:
    return some_letters(text, rng, share=0.5, table=_LOOK_ALIKES)


TECHNIQUE = Technique("homoglyphs", _rewrite, is_seen=True)
