"""Three hundred inputs that somebody might send to hurt the service, as raw bytes; no log may hold `MARK`."""

import gzip
import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MARK = "Xq7mark-of-what-a-person-wrote"


@dataclass(frozen=True)
class Hostile:
    """One input: a name, and the pieces in which its bytes go over the wire with a pause between them."""

    name: str
    pieces: list[bytes]


def corpus(key: str) -> list[Hostile]:
    """All of them."""
    return [*_bodies(key), *_texts(key), *_heads(key), *_paths(key), *_wires(key), *_tables(key), *_mutations(key)]


def post(path: str, body: bytes, key: str, *headers: str) -> bytes:
    """A well-formed request around whatever body."""
    lines = [
        f"POST {path} HTTP/1.1",
        "host: x",
        f"authorization: Bearer {key}",
        *(() if any(h.startswith("content-type") for h in headers) else ("content-type: application/json",)),
        *(() if any(h.startswith("transfer") for h in headers) else (f"content-length: {len(body)}",)),
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _event(**fields: object) -> bytes:
    return json.dumps({"detector": "content", "event": fields}).encode()


def _bodies(key: str) -> Iterator[Hostile]:
    deep = {
        "arrays": b"[" * 100_000,
        "objects": b'{"a":' * 100_000,
        "closed arrays": b"[" * 50_000 + b"]" * 50_000,
        "event": b'{"detector":"content","event":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "input": b'{"input":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    }
    numbers = [
        b"1e999999",
        b"-1e999999",
        b"9" * 5000,
        b"0." + b"0" * 5000 + b"1",
        b"NaN",
        b"Infinity",
        b"-0",
        b"1e-400",
    ]
    wrong = [
        b"",
        b" ",
        b"null",
        b"true",
        b"0",
        b'""',
        b"[]",
        b"{}",
        b"{",
        b"}",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"detector":"content"}',
        b'{"detector":1,"event":{}}',
        b'{"detector":"content","event":{},"events":[]}',
        b'{"detector":"content","events":[]}',
        b'{"detector":"content","events":[' + b"{}," * 600 + b"{}]}",
        b'{"detector":"../../etc/passwd","event":{}}',
        b'{"detector":"content\\u0000","event":{"text":"a"}}',
        b'{"input":{}}',
        b'{"input":[[]]}',
        b'{"input":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}',
        b'{"input":"a","model":"' + b"m" * 100_000 + b'"}',
        b'{"input":[' + b'"a",' * 600 + b'"a"]}',
    ]
    for path in ("/v1/decisions", "/v1/scores", "/v1/moderations"):
        for name, body in deep.items():
            yield Hostile(f"{path} deep {name}", [post(path, body, key)])
        for body in wrong:
            yield Hostile(f"{path} {body[:30]!r}", [post(path, body, key)])
    for number in numbers:
        for field in (b"event_us", b"num_tokens"):
            body = b'{"detector":"content","event":{"text":"' + MARK.encode() + b'","' + field + b'":' + number + b"}}"
            yield Hostile(f"{field!r} = {number[:12]!r}", [post("/v1/decisions", body, key)])
    for line in (b"\n" * 10_000, b"x" * 2_000_000, b"[" * 100_000 + b"\n", b'{"text":"a"}\r\n' * 50, b"\xff\n" * 300):
        yield Hostile(f"bulk {line[:10]!r}", [post("/v1/bulk?detector=content", line, key)])


def _texts(key: str) -> Iterator[Hostile]:
    texts = {
        "NUL": f"{MARK}\x00{MARK}",
        "10 MB": MARK * (10_000_000 // len(MARK)),
        "right at the limit": "a" * 200_000,
        "past the limit": "a" * 200_001,
        "combining": "a" + "\u0301" * 50_000,
        "right to left": "\u202e" * 10_000 + MARK,
        "zero width": "\u200b" * 50_000,
        "ligature": "\ufdfa" * 20_000,
        "emoji": "👩‍👩‍👧‍👦" * 5_000,
        "base64 of base64": "QUFB" * 40_000,
        "spaced": "a b " * 40_000,
        "one word": "w" * 190_000,
        "control": "".join(map(chr, range(32))) * 2000,
        "format": "%s%n{0}{}{MARK}$(id)`id`" * 100,
        "log lines": f"{MARK}\r\nERROR root: {MARK}\r\n" * 50,
        "markup": f"<script>{MARK}</script>" * 100,
        "quotes": "'; DROP TABLE decisions; --" * 100,
    }
    for name, text in texts.items():
        yield Hostile(f"text {name}", [post("/v1/decisions", _event(text=text), key)])
        body = json.dumps({"input": text}, ensure_ascii=False).encode()
        yield Hostile(f"input {name}", [post("/v1/moderations", body, key)])
    surrogates = [r"\ud800", r"\udfff", r"\ud800\ud800", r"\udc00\ud800", r"a\ud83d", r"\uD83D\uDE00"]
    for escape in surrogates:
        body = b'{"detector":"content","event":{"text":"' + MARK.encode() + escape.encode() + b'"}}'
        yield Hostile(f"surrogate {escape}", [post("/v1/decisions", body, key)])
        yield Hostile(
            f"surrogate in an id {escape}",
            [post("/v1/decisions", body.replace(b'"text":"', b'"text":"a","account_id":"'), key)],
        )
    for raw in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x82"):
        body = b'{"detector":"content","event":{"text":"' + MARK.encode() + raw + b'"}}'
        yield Hostile(f"not UTF-8 {raw!r}", [post("/v1/decisions", body, key)])


def _heads(key: str) -> Iterator[Hostile]:
    body = _event(text=MARK)
    bombs = {"gzip": gzip.compress(b"\0" * 50_000_000), "deflate": zlib.compress(b"\0" * 50_000_000)}
    for coding, bomb in bombs.items():
        yield Hostile(f"bomb {coding}", [post("/v1/decisions", bomb, key, f"content-encoding: {coding}")])
    for coding in ("br", "zstd", "gzip, gzip", "identity, gzip", "GZIP", MARK):
        yield Hostile(f"coding {coding}", [post("/v1/decisions", body, key, f"content-encoding: {coding}")])
    for media in (
        "application/vnd.bentoml+pickle",
        "application/x-pickle",
        "text/plain",
        "multipart/form-data",
        "*/*",
        MARK,
        "",
    ):
        yield Hostile(f"media {media}", [post("/v1/decisions", body, key, f"content-type: {media}")])
    for id_ in ("a" * 1000, MARK * 4 + "!", "\x01", "a b", "../../x", "%0d%0a"):
        yield Hostile(f"request id {id_[:8]!r}", [post("/v1/decisions", body, key, f"x-request-id: {id_}")])
    yield Hostile("many headers", [post("/v1/decisions", body, key, *(f"x-{n}: {MARK}" for n in range(5000)))])
    yield Hostile("a long header", [post("/v1/decisions", body, key, "x-a: " + "a" * 60_000)])
    yield Hostile("many keys", [post("/v1/decisions", body, key, *["authorization: Bearer no"] * 500)])
    yield Hostile("a long key", [post("/v1/decisions", body, "k" * 60_000)])
    yield Hostile("no key", [post("/v1/decisions", body, "")])
    yield Hostile("bytes as a key", [post("/v1/decisions", body, "KEY").replace(b"KEY", b"\xff\xfe\x80")])
    for length in ("-1", "1e9", "99999999999999999999", "0x10", "+5", "5 5", ""):
        request = post("/v1/decisions", body, key).replace(
            f"content-length: {len(body)}".encode(), f"content-length: {length}".encode()
        )
        yield Hostile(f"content-length {length!r}", [request])


def _paths(key: str) -> Iterator[Hostile]:
    tricks = [
        "/v1/decisions/../../../etc/passwd",
        "/v1/decisions/..%2f..%2fetc%2fpasswd",
        "/v1/decisions/%2e%2e/%2e%2e/etc/passwd",
        "/v1/decisions/dec_" + "0" * 32 + "%00",
        "/v1/decisions/dec_" + "f" * 32,
        "/v1/decisions/dec_" + "0" * 31 + "%0a",
        "/v1/decisions/" + "a" * 20_000,
        "/v1/decisions/%ff%fe",
        "/v1/decisions/%",
        "/v1//decisions",
        "//v1/decisions",
        "/v1/decisions/",
        "/v1/./decisions",
        "/V1/DECISIONS",
        "/docs/../v1/releases",
        "/docs.js/..;/v1/releases",
        "/readyz/../v1/releases",
        "/metrics%00",
        "/static/../../serving/service.py",
        "/" + "../" * 200 + "etc/passwd",
        "/\\..\\..\\windows",
        "/?" + "a=b&" * 5000,
        "/v1/bulk?detector=../../x",
        "/v1/bulk?detector=" + "d" * 20_000,
        "http://169.254.169.254/latest/meta-data",
        "*",
    ]
    for path in tricks:
        for method in ("GET", "POST"):
            head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 0\r\n\r\n"
            yield Hostile(f"{method} {path[:40]}", [head.encode()])
    for method in ("PUT", "DELETE", "TRACE", "CONNECT", "OPTIONS", "HEAD", "PATCH", "PROPFIND", "G" * 5000, "\x00"):
        yield Hostile(f"method {method[:9]!r}", [f"{method} /v1/decisions HTTP/1.1\r\nhost: x\r\n\r\n".encode()])


def _wires(key: str) -> Iterator[Hostile]:
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    chunked = post("/v1/decisions", b"", key, "transfer-encoding: chunked")
    yield Hostile("chunks past the limit", [chunked + chunk * 3])
    yield Hostile("chunks past the limit without an end", [chunked + chunk, chunk[:100]])
    for size in (b"zz", b"-5", b"fffffffffffffffff", b"5;" + b"e" * 9000, b"\x00"):
        yield Hostile(f"chunk of size {size[:6]!r}", [chunked + size + b"\r\nhello\r\n0\r\n\r\n"])
    body = _event(text=MARK)
    whole = post("/v1/decisions", body, key)
    yield Hostile("both lengths", [post("/v1/decisions", body, key, "transfer-encoding: chunked\r\ncontent-length: 5")])
    yield Hostile("two requests as one", [whole + whole])
    yield Hostile("a body in pieces", [whole[:-20], *(whole[-20 + n : -19 + n or None] for n in range(20))])
    yield Hostile("half a body", [whole[:-30]])
    yield Hostile("half a head", [whole[:40]])
    yield Hostile("nothing", [b""])
    yield Hostile("TLS", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)])
    yield Hostile("HTTP/2", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
    yield Hostile("HTTP/9.9", [b"GET / HTTP/9.9\r\n\r\n"])
    yield Hostile(
        "upgrade", [b"GET /v1/decisions HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"]
    )
    yield Hostile("expect", [post("/v1/decisions", body, key, "expect: 100-continue")])
    yield Hostile("expect something", [post("/v1/decisions", body, key, "expect: the-unexpected")])


def _tables(key: str) -> Iterator[Hostile]:
    """To the route whose input BentoML checks."""
    tables: list[object] = [
        [MARK],
        [[MARK]],
        {MARK: MARK},
        MARK,
        [{"text": MARK, "kind": MARK}],
        [{MARK: "x"}],
        [{"text": MARK}] * 1000,
        [{"text": {"a": MARK}}],
    ]
    for number, rows in enumerate(tables):
        body = json.dumps({"detector": "content", "rows": rows}).encode()
        yield Hostile(f"table {number}", [post("/v1/tables", body, key)])


def _mutations(key: str) -> Iterator[Hostile]:
    """A good body with some bytes changed, always in the same way."""
    rng = random.Random(6)
    good = _event(text=f"{MARK} and more", account_id="a1", event_us=1_700_000_000_000_000, kind="prompt")
    for number in range(60):
        body = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        yield Hostile(f"mutation {number}", [post("/v1/decisions", bytes(body), key)])
