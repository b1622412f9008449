"""The pages of people who approve without a terminal: a card, what it changes, a statement, and a passkey.

Nothing is decided here: the same `draft` and `submit` as for a key file write the same ledger. A page is only what a
person sees; what counts is the statement that their authenticator signed. Work that reads bundles runs in threads: the
same process answers events meanwhile.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from serving.approval import SigningRefused, draft, status, submit
from serving.bundle import Bundle
from serving.deployment import Shelves
from serving.difference import difference, in_place_of
from serving.ledger import Ledger
from serving.pages import card_html, render
from serving.passkey_login import SESSION_S, LoginRefused, Logins, credential_of, enrolled
from serving.passkeys import challenge_of, from_base64url, signature_of, to_base64url
from serving.people import Authority, People, authority, load_people
from serving.release import find, sealed_bundles
from serving.sealed_files import BundleAltered
from serving.statement import SignatureInvalid, enclose, signed_bytes

PREFIX = "/admin"
_COOKIE = "mews_session"
_ENROL = b"mews enrol "
_SCRIPT = Path(__file__).parent / "templates" / "admin.js"


class Asked(msgspec.Struct, frozen=True):
    """What a browser sends; each route reads what it needs."""

    credential: dict[str, Any] = {}
    response: dict[str, str] = {}
    token: str = ""
    payload: str = ""
    kind: str = "approved"
    reason: str = ""


@dataclass(frozen=True)
class Home:
    """The ledger, the people and the bundles of one home, and who is logged in."""

    root: Path
    ledger: Ledger
    logins: Logins

    @property
    def people(self) -> People:
        """Read anew each time: the file may change."""
        return load_people(self.root / "people.yaml")

    @property
    def shelves(self) -> Shelves:
        """Where sealed bundles lie."""
        return Shelves(self.root / "releases", self.root / "policies")

    def authority(self) -> Authority:
        """Who counts now."""
        return authority(self.ledger.entries(), self.people)

    def bundles(self) -> list[Bundle]:
        """Every sealed bundle: releases, policies, hotfixes, each newest first."""
        roots = (self.shelves.releases, self.shelves.policies, self.shelves.hotfixes)
        entries = self.ledger.entries()
        return [bundle for root in roots for bundle in reversed(sealed_bundles(root, entries))]

    def find(self, digest: str) -> Bundle:
        """The bundle of a digest."""
        for root in (self.shelves.releases, self.shelves.policies, self.shelves.hotfixes):
            if any(root.glob(f"*/{digest}")):
                return find(root, digest)
        raise HTTPException(404, "no bundle has this digest")


def build_admin(root: Path, ledger: Ledger) -> Starlette:
    """The pages over one home, to be mounted at PREFIX."""
    app = Starlette(routes=_ROUTES, exception_handlers=dict.fromkeys(_STATUS, _refused))
    app.state.home = Home(root, ledger, Logins(root))
    return app


def index(request: Request) -> Response:
    """What waits for signatures; a browser without a session is sent to log in."""
    home, key = _home(request), _key(request)
    rows = [(bundle, status(home.ledger, home.people, bundle)) for bundle in home.bundles()]
    return HTMLResponse(render("admin_index.html.j2", {"rows": rows, "person": home.authority().owner(key)}))


def login_page(_: Request) -> Response:
    """Log in, or make a passkey."""
    return HTMLResponse(render("admin_login.html.j2", {}))


def login_options(request: Request) -> Response:
    """What the browser needs to ask an authenticator who is there."""
    home = _home(request)
    known = [credential for p in home.authority().persons.values() if (credential := credential_of(p))]
    return JSONResponse({**home.logins.challenge(), "site": _site(request), "credentials": known})


async def login(request: Request) -> Response:
    """Begin a session."""
    home, asked = _home(request), await _asked(request)
    people = list(home.authority().persons.values())
    session = home.logins.login(people, str(asked.credential.get("id", "")), asked.response, token=asked.token)
    answer = JSONResponse({"next": f"{PREFIX}/"})
    is_secure = request.url.scheme == "https"
    answer.set_cookie(
        _COOKIE, session, max_age=SESSION_S, path=PREFIX, httponly=True, secure=is_secure, samesite="strict"
    )
    return answer


def enrol_options(request: Request) -> Response:
    """What the browser needs to make a passkey."""
    return JSONResponse({**_home(request).logins.challenge(_ENROL), "site": _site(request)})


async def enrol(request: Request) -> Response:
    """The line of a passkey that was made just now; it counts once two people sign a people.yaml that holds it."""
    asked, origin = await _asked(request), request.headers.get("origin", "")
    challenge = challenge_of(_home(request).logins.asked(asked.token, _ENROL))
    text = enrolled(asked.credential, challenge=challenge, site=_site(request), origin=origin)
    return JSONResponse({"line": f"- {{name: YOUR_NAME, roles: [policy], public_key: '{text}'}}"})


def bundle_page(request: Request) -> Response:
    """The card, the difference and the statement of one bundle."""
    home, key = _home(request), _key(request)
    bundle = home.find(request.path_params["digest"])
    facts = {
        "bundle": bundle,
        "person": home.authority().owner(key),
        "approval": status(home.ledger, home.people, bundle),
        "difference": difference(bundle, in_place_of(home.ledger, home.people, home.shelves, bundle)),
        "card": card_html(bundle),
    }
    return HTMLResponse(render("admin_bundle.html.j2", facts))


async def draft_statement(request: Request) -> Response:
    """The statement that the person who is logged in would sign, and the challenge that stands for it."""
    return await asyncio.to_thread(_draft, request, await _asked(request))


def _draft(request: Request, asked: Asked) -> Response:
    home, key = _home(request), _key(request)
    bundle = home.find(request.path_params["digest"])
    kind = {"approved": "approved", "rejected": "rejected"}.get(asked.kind)
    if kind is None:
        raise ValueError(f"kind is {asked.kind!r:.40}; it must be 'approved' or 'rejected'")
    statement = draft(home.ledger, home.people, bundle, key=key, kind=kind, reason=asked.reason)  # type: ignore[arg-type]
    payload = statement.to_bytes()
    owner = home.authority().owner(key)
    return JSONResponse(
        {
            "payload": to_base64url(payload),
            "challenge": to_base64url(challenge_of(signed_bytes(payload))),
            "credential": owner and credential_of(owner),
            "site": _site(request),
        }
    )


async def submit_statement(request: Request) -> Response:
    """Write a statement that an authenticator signed to the ledger."""
    return await asyncio.to_thread(_submit, request, await _asked(request))


def _submit(request: Request, asked: Asked) -> Response:
    home, key = _home(request), _key(request)
    bundle = home.find(request.path_params["digest"])
    envelope = enclose(from_base64url(asked.payload), signature_of(key, asked.response))
    approval = submit(home.ledger, home.people, bundle, envelope)
    return JSONResponse({"state": approval.state, "reason": approval.reason})


def script(_: Request) -> Response:
    """What speaks to the authenticator."""
    return FileResponse(_SCRIPT, media_type="text/javascript")


_ROUTES = [
    Route("/", index),
    Route("/login", login_page),
    Route("/admin.js", script),
    Route("/login/options", login_options, methods=["POST"]),
    Route("/login", login, methods=["POST"]),
    Route("/enrol/options", enrol_options, methods=["POST"]),
    Route("/enrol", enrol, methods=["POST"]),
    Route("/bundles/{digest:str}", bundle_page),
    Route("/bundles/{digest:str}/draft", draft_statement, methods=["POST"]),
    Route("/bundles/{digest:str}/submit", submit_statement, methods=["POST"]),
]
_STATUS: dict[type[Exception], int] = {
    LoginRefused: 401,
    SigningRefused: 403,
    SignatureInvalid: 400,
    BundleAltered: 409,
    ValueError: 400,
    RecursionError: 400,  # JSON that is nested too deeply, be it the body or what a passkey answered
}


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, LoginRefused) and request.method == "GET":
        return RedirectResponse(f"{PREFIX}/login")
    found = next(code for kind, code in _STATUS.items() if isinstance(error, kind))
    return JSONResponse({"error": str(error)}, found)


async def _asked(request: Request) -> Asked:
    return msgspec.json.decode(await request.body(), type=Asked)


def _home(request: Request) -> Home:
    return request.app.state.home


def _key(request: Request) -> str:
    return _home(request).logins.key_of(request.cookies.get(_COOKIE, ""))


def _site(request: Request) -> str:
    return request.url.hostname or "localhost"
