"""Signs with a key that an ssh-agent holds: the private half is in no file here, perhaps on a hardware key.

The protocol is draft-miller-ssh-agent: a length, a kind, strings with their lengths. An agent's Ed25519 signature is
a plain one over the bytes it was given, so it verifies like that of a key file.
"""

import base64
import os
import socket
import struct
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import Signature, Signer, SSlibKey

_LIST, _LISTED, _SIGN, _SIGNED = 11, 12, 13, 14
_ED25519 = b"ssh-ed25519"


class AgentSigner(Signer):
    """A signer for the Ed25519 key of this text (as in people.yaml); raises ValueError where no agent holds it."""

    def __init__(self, key_text: str) -> None:
        raw = base64.b64decode(key_text.removeprefix("ed25519:"))
        self._blob = _string(_ED25519) + _string(raw)
        if self._blob not in _identities():
            raise ValueError("no ssh-agent holds this person's key; `ssh-add -l` lists what it holds")
        self._public = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(raw))

    @property
    def public_key(self) -> SSlibKey:
        """The public half."""
        return self._public

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: object, secrets_handler: object = None) -> "AgentSigner":
        """Not needed: an agent's key has no address of its own."""
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        """Let the agent sign; raises ValueError where it refuses."""
        answer = _ask(struct.pack(">B", _SIGN) + _string(self._blob) + _string(payload) + struct.pack(">I", 0))
        if answer[0] != _SIGNED:
            raise ValueError("the ssh-agent refused to sign")
        _, signature = _strings(next(_strings(answer[1:])))
        return Signature(self._public.keyid, signature.hex())


def _identities() -> set[bytes]:
    answer = _ask(struct.pack(">B", _LIST))
    return set(list(_strings(answer[5:]))[::2]) if answer[0] == _LISTED else set()


def _ask(request: bytes) -> bytes:
    path = os.environ.get("SSH_AUTH_SOCK")
    if not path:
        raise ValueError("there is no key file, and SSH_AUTH_SOCK names no ssh-agent")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.connect(path)
            agent.sendall(_string(request))
            (length,) = struct.unpack(">I", _exactly(agent, 4))
            return _exactly(agent, length)
    except OSError as error:
        raise ValueError(f"no ssh-agent answers at {path}, which SSH_AUTH_SOCK names") from error


def _exactly(agent: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        if not (more := agent.recv(length - len(content))):
            raise ValueError("the ssh-agent hung up")
        content += more
    return content


def _string(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _strings(content: bytes) -> Iterator[bytes]:
    while content:
        (length,) = struct.unpack(">I", content[:4])
        yield content[4 : 4 + length]
        content = content[4 + length :]
