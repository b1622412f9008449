"""How Feast 0.67 lays out its online stores, without importing it: what is written here Feast reads, and the reverse.

A service needs a few keys and no more of Feast; tests compare each with Feast's own answer, so that another version
cannot change them unnoticed.
"""

from struct import pack

PROJECT = "mews"
STATE, SEEN = "state", "seen"  # the two columns of a state view
_STRING = 2  # ValueType.STRING
_BYTES_VAL = b"\x0a"  # the tag of Value.bytes_val
_MASK = 0xFFFFFFFF


def state_view(view: str) -> str:
    """The Feast view that holds the states of a view."""
    return f"{view}_state"


def entity_key_prefix(entity: str) -> bytes:
    """What the keys of an entity have in common; `entity_key_suffix` completes it."""
    name = entity.encode()
    return pack("<III", 1, _STRING, len(name)) + name + pack("<I", _STRING)


def entity_key_suffix(key: str) -> bytes:
    """The part of an entity's key that tells it from others."""
    value = key.encode()
    return pack("<I", len(value)) + value


def redis_field(view: str, column: str) -> bytes:
    """The field of a hash that holds a feature: murmur3 of its name, least significant byte first."""
    return pack("<I", _murmur3(f"{state_view(view)}:{column}".encode()))


def redis_timestamp_field(view: str) -> bytes:
    """The field of a hash that holds the timestamp of a view."""
    return f"_ts:{state_view(view)}".encode()


def table(project: str, view: str) -> str:
    """The SQLite table of a view."""
    return f"{project}_{state_view(view)}"


def to_value(content: bytes) -> bytes:
    """Bytes as a serialized Value."""
    return _BYTES_VAL + _varint(len(content)) + content


def from_value(value: bytes) -> memoryview:
    """The bytes in a serialized Value."""
    start = 1
    while value[start] & 0x80:
        start += 1
    return memoryview(value)[start + 1 :]


def to_timestamp(us: int) -> bytes:
    """A moment as a serialized Timestamp, in whole seconds."""
    return b"\x08" + _varint(us // 1_000_000)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _murmur3(data: bytes) -> int:
    """MurmurHash3 x86 32 bit with seed 0 (Appleby, public domain)."""
    code, whole = 0, len(data) & ~3
    for at in range(0, whole, 4):
        code = _rotated(code ^ _mixed(int.from_bytes(data[at : at + 4], "little")), 13) * 5 + 0xE6546B64 & _MASK
    code ^= _mixed(int.from_bytes(data[whole:], "little"))
    code ^= len(data)
    code = (code ^ code >> 16) * 0x85EBCA6B & _MASK
    code = (code ^ code >> 13) * 0xC2B2AE35 & _MASK
    return code ^ code >> 16


def _mixed(block: int) -> int:
    return _rotated(block * 0xCC9E2D51 & _MASK, 15) * 0x1B873593 & _MASK


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> 32 - by) & _MASK
