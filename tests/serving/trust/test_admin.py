"""People approve in a browser with a passkey; the same ledger and the same checks as for a key file."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml
from starlette.testclient import TestClient

from serving.approval import require_servable, sign, status
from serving.bundle import Bundle
from serving.parts import Parts
from serving.passkey_login import LoginRefused, Logins, credential_of
from serving.passkeys import from_base64url, to_base64url
from serving.people import People, Person, propose
from serving.statement import signed_bytes
from tests.browser import Browser
from tests.serving.trust.authenticator import Authenticator
from tests.serving.trust.conftest import Office

SITE = "https://mews.example.com"
CARD = """# payment_fraud: passed the gate

## Promises

| label | promise | answer |
|---|---|---|
| fraud | benign_fpr ≤ 0.01 | proved |

<script>document.title = "owned"</script>
"""


def join(office: Office, public_key: str) -> None:
    """Two people let mia in, with this key."""
    mia = Person(name="mia", roles=["policy"], public_key=public_key)
    office.people = People(people=[*office.people.people, mia])
    for name in ("ada", "bob"):
        propose(office.ledger, office.people, signer=office.signers[name])
    write_people(office)


def write_people(office: Office) -> None:
    (office.root / "people.yaml").write_text(yaml.safe_dump(office.people.model_dump()))


@pytest.fixture
def release(office: Office) -> Bundle:
    (office.run_dir / "card.md").write_text(CARD)
    write_people(office)
    return office.seal()


@pytest.fixture
def parts(office: Office, release: Bundle) -> Iterator[Parts]:
    made = Parts(office.root)
    yield made
    made.close()


@pytest.fixture
def mia(office: Office, release: Bundle) -> Authenticator:
    authenticator = Authenticator()
    join(office, authenticator.text)
    return authenticator


@pytest.fixture
def client(parts: Parts) -> Iterator[TestClient]:
    with TestClient(parts.door, base_url=SITE, follow_redirects=False) as made:
        yield made


def answer(parts: Parts, authenticator: Authenticator, **how: Any) -> dict[str, Any]:
    """What a browser sends to log in."""
    logins = parts_logins(parts)
    token = logins.challenge()["token"]
    person = Person(name="x", roles=["policy"], public_key=authenticator.text)
    response = authenticator.answer(logins.asked(token), **how)
    return {"credential": {"id": credential_of(person)}, "response": response, "token": token}


def parts_logins(parts: Parts) -> Any:
    return parts.admin.state.home.logins


def logged_in(client: TestClient, parts: Parts, authenticator: Authenticator) -> TestClient:
    found = client.post("/admin/login", json=answer(parts, authenticator))
    assert found.status_code == 200, found.text
    return client


def test_a_passkey_logs_in_reads_the_card_and_approves(
    office: Office, release: Bundle, parts: Parts, client: TestClient, mia: Authenticator
) -> None:
    sign(office.ledger, office.people, release, signer=office.signers["ada"])
    logged_in(client, parts, mia)
    page = client.get(f"/admin/bundles/{release.digest}").text
    drafted = client.post(f"/admin/bundles/{release.digest}/draft", json={}).json()
    assertion = mia.answer(signed_bytes(from_base64url(drafted["payload"])))

    done = client.post(
        f"/admin/bundles/{release.digest}/submit", json={"payload": drafted["payload"], "response": assertion}
    )

    assert "benign_fpr ≤ 0.01" in page
    assert "<script>document.title" not in page
    assert release.digest in page
    assert done.json()["state"] == "approved"
    assert require_servable(office.reopen(), office.people, release.path) == release


@pytest.mark.bypass
@pytest.mark.parametrize("path", ["/admin/", "/admin/bundles/{digest}"])
def test_without_a_session_every_page_leads_to_the_login(client: TestClient, release: Bundle, path: str) -> None:
    found = client.get(path.format(digest=release.digest))

    assert (found.status_code, found.headers["location"]) == (307, "/admin/login")


@pytest.mark.bypass
@pytest.mark.parametrize("act", ["draft", "submit"])
@pytest.mark.parametrize("cookie", [None, "e30.00", "W10.", "x", "e30.\xe9"])
def test_without_a_session_nothing_is_stated(client: TestClient, release: Bundle, act: str, cookie: str | None) -> None:
    headers = {} if cookie is None else {"cookie": f"mews_session={cookie}".encode("latin-1")}

    found = client.post(f"/admin/bundles/{release.digest}/{act}", json={}, headers=headers)

    assert found.status_code == 401


@pytest.mark.bypass
@pytest.mark.parametrize("how", [{"origin": "https://evil.com"}, {"flags": 1}, {"site": "evil.com"}])
def test_a_login_from_elsewhere_is_refused(
    client: TestClient, parts: Parts, mia: Authenticator, how: dict[str, Any]
) -> None:
    assert client.post("/admin/login", json=answer(parts, mia, **how)).status_code == 401


@pytest.mark.bypass
def test_a_login_cannot_be_replayed(client: TestClient, parts: Parts, mia: Authenticator) -> None:
    asked = answer(parts, mia)

    assert client.post("/admin/login", json=asked).status_code == 200
    assert client.post("/admin/login", json=asked).status_code == 401


@pytest.mark.bypass
def test_another_process_over_the_same_home_takes_a_login_once_and_knows_its_session(
    office: Office, parts: Parts, mia: Authenticator
) -> None:
    other, people = Logins(office.root), office.people.people
    asked = answer(parts, mia)

    session = other.login(people, asked["credential"]["id"], asked["response"], token=asked["token"])

    assert parts_logins(parts).key_of(session) == mia.text
    with pytest.raises(LoginRefused, match="answered already"):
        parts_logins(parts).login(people, asked["credential"]["id"], asked["response"], token=asked["token"])
    with pytest.raises(LoginRefused):
        other.asked(session)


@pytest.mark.bypass
@pytest.mark.parametrize("later_s", [301, 3601])
def test_a_challenge_and_a_session_end(
    office: Office, parts: Parts, mia: Authenticator, monkeypatch: pytest.MonkeyPatch, later_s: int
) -> None:
    logins, asked = parts_logins(parts), answer(parts, mia)
    session = logins.login(office.people.people, asked["credential"]["id"], asked["response"], token=asked["token"])
    is_over, now = later_s > 3600, time.time()

    monkeypatch.setattr(time, "time", lambda: now + later_s)

    with pytest.raises(LoginRefused, match="over"):
        logins.key_of(session) if is_over else logins.asked(asked["token"])


@pytest.mark.bypass
def test_an_unknown_passkey_does_not_log_in(client: TestClient, parts: Parts, mia: Authenticator) -> None:
    assert client.post("/admin/login", json=answer(parts, Authenticator())).status_code == 401


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize("path", ["/admin/login", "/admin/enrol"])
def test_json_that_is_nested_too_deeply_is_the_callers_mistake(client: TestClient, path: str) -> None:
    body = f'{{"credential": {nested(3000)}}}'

    found = client.post(path, content=body, headers={"content-type": "application/json"})

    assert (found.status_code, found.headers["content-type"]) == (400, "application/json")


def test_a_passkey_that_answers_json_nested_too_deeply_is_the_callers_mistake(
    client: TestClient, parts: Parts, mia: Authenticator
) -> None:
    asked = answer(parts, mia)
    asked["response"]["clientDataJSON"] = to_base64url(nested(3000).encode())

    assert client.post("/admin/login", json=asked).status_code == 400


@pytest.mark.bypass
def test_a_login_is_no_approval(
    office: Office, release: Bundle, parts: Parts, client: TestClient, mia: Authenticator
) -> None:
    logged_in(client, parts, mia)
    drafted = client.post(f"/admin/bundles/{release.digest}/draft", json={}).json()
    another_login = answer(parts, mia)["response"]

    found = client.post(
        f"/admin/bundles/{release.digest}/submit", json={"payload": drafted["payload"], "response": another_login}
    )

    assert found.status_code == 403
    assert office.reopen().entries()[-1].kind == "refused"
    assert status(office.ledger, office.people, release).signed_by == ()


def test_a_statement_without_a_signature_is_the_callers_mistake(
    release: Bundle, parts: Parts, client: TestClient, mia: Authenticator
) -> None:
    found = logged_in(client, parts, mia).post(f"/admin/bundles/{release.digest}/submit", json={"payload": "e30"})

    assert found.status_code == 400
    assert found.json() == {"error": "response lacks authenticatorData, clientDataJSON, signature"}


@pytest.mark.bypass
def test_a_session_ends_when_its_person_is_taken_out(
    office: Office, release: Bundle, parts: Parts, client: TestClient, mia: Authenticator
) -> None:
    logged_in(client, parts, mia)
    office.people = People(people=[p for p in office.people.people if p.name != "mia"])
    write_people(office)

    found = client.post(f"/admin/bundles/{release.digest}/draft", json={})

    assert found.status_code == 403


@pytest.mark.bypass
def test_nobody_is_shown_an_altered_card(release: Bundle, parts: Parts, client: TestClient, mia: Authenticator) -> None:
    logged_in(client, parts, mia)
    (release.path / "card.md").chmod(0o644)
    (release.path / "card.md").write_text("# payment_fraud: perfect\n")

    found = client.get(f"/admin/bundles/{release.digest}")

    assert found.status_code == 409
    assert "card.md changed" in found.text


def test_a_rejection_needs_a_reason(release: Bundle, parts: Parts, client: TestClient, mia: Authenticator) -> None:
    logged_in(client, parts, mia)

    found = client.post(f"/admin/bundles/{release.digest}/draft", json={"kind": "rejected", "reason": " "})

    assert found.status_code == 400
    assert "with a reason" in found.json()["error"]


@pytest.fixture
def url(parts: Parts) -> Iterator[str]:
    """The service on a port, as a browser reaches it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(parts.door, port=port, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://localhost:{port}"
    server.should_exit = True
    thread.join()


def test_in_a_browser_a_passkey_is_made_let_in_and_approves(
    office: Office, release: Bundle, url: str, browser: Browser, tmp_path: Path
) -> None:
    sign(office.ledger, office.people, release, signer=office.signers["ada"])
    browser.open(f"{url}/admin/")
    browser.click("enrol")
    [line] = yaml.safe_load(browser.said())
    join(office, line["public_key"])

    browser.click("login")
    browser.until("location.pathname === '/admin/' && document.body?.innerText.includes('You are mia')")
    browser.open(f"{url}/admin/bundles/{release.digest}")
    card = browser.text()
    browser.screenshot(tmp_path / "approval.png")
    browser.click("approve")
    said = browser.said()

    assert "benign_fpr ≤ 0.01" in card
    assert "I, mia, read this and approve release/payment_fraud" in card
    assert said.startswith("approved: signed by ada (ml), mia (policy)")
    assert require_servable(office.reopen(), office.people, release.path) == release
    assert browser.ask("document.title") == "Mews: release/payment_fraud"


def test_in_a_browser_a_rejection_stands_for_good(office: Office, release: Bundle, url: str, browser: Browser) -> None:
    browser.open(f"{url}/admin/login")
    browser.click("enrol")
    [line] = yaml.safe_load(browser.said())
    join(office, line["public_key"])
    browser.click("login")
    browser.until("document.body?.innerText.includes('You are mia')")
    browser.open(f"{url}/admin/bundles/{release.digest}")

    browser.ask("document.getElementById('reason').value = 'blocks pharmacies'")
    browser.click("reject")

    assert browser.said() == "rejected: rejected by mia: blocks pharmacies"
    assert status(office.reopen(), office.people, release).state == "rejected"
