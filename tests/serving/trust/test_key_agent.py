from pathlib import Path

import pytest

from serving.key_agent import AgentSigner
from tests.serving.trust.conftest import Office


def test_a_socket_that_is_gone_is_named(office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone.sock"))

    with pytest.raises(ValueError, match=r"no ssh-agent answers at .*gone\.sock"):
        AgentSigner(office.people.people[0].public_key)
