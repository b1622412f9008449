"""Who may sign: one key is one person, however it is written, and whoever left has no say."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from serving.keys import create_key, public_key
from serving.passkeys import Passkey
from serving.people import People, Person
from tests.serving.trust.conftest import Office


@pytest.mark.bypass
def test_one_key_in_two_spellings_is_no_second_person(office: Office) -> None:
    public = create_key(office.root / "mallory.pem", None)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("ed25519:")))
    spellings = [public, *(Passkey("site", name, key).text for name in ("abc", "def"))]
    once = [Person(name=f"mallory{i}", roles=["ml", "policy"], public_key=text) for i, text in enumerate(spellings)]

    for pair in (once[:2], once[1:]):
        with pytest.raises(ValueError, match="public_key is there twice"):
            People(people=pair)
    with pytest.raises(ValueError, match="it must be 'ed25519:' and 32 bytes"):
        public_key(public.removeprefix("ed25519:"))
