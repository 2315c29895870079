"""An OpenID Connect issuer over HTTP that does as it is told, however wrong; and a browser that goes there and back."""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import parse_qs, parse_qsl, urlsplit

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

CLIENT, SECRET = "trunkline", "the-secret-of-the-client"
Twist = Callable[[dict[str, Any]], Any]


def new_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig", "alg": "RS256"}, private=True)


class HostileIssuer:
    """Strict with its clients, as the specification has it; `twist` is what becomes of its ID tokens' claims."""

    def __init__(self, key: RSAKey) -> None:
        self.key = key
        self.shown = [key]  # of the keys
        self.person: dict[str, Any] = {"sub": "subject-1", "email": "ada@example.com", "email_verified": True}
        self.in_userinfo: dict[str, Any] | None = None  # what is told there and not in the token
        self.twist: Twist = lambda claims: claims
        self.signed: Callable[[dict[str, Any]], str] = self.sign
        self.metadata: dict[str, Any] = {}  # instead of what is true
        self.broken = False
        self.asked: list[str] = []
        self.methods = ["client_secret_basic"]
        self._codes: dict[str, dict[str, str]] = {}
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_get("/keys", self._keys)
        app.router.add_get("/userinfo", self._userinfo)
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.key)

    def rotate(self, key: RSAKey) -> None:
        """A new key signs, and the old one is not shown any more."""
        self.key, self.shown = key, [key]

    async def _discovery(self, request: web.Request) -> web.Response:
        self.asked.append("discovery")
        if self.broken:
            return web.Response(status=502)
        found = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "token_endpoint_auth_methods_supported": self.methods,
        }
        return web.json_response(found | self.metadata)

    async def _authorize(self, request: web.Request) -> web.Response:
        """Somebody is logged in here already: he is sent back at once."""
        asked = dict(request.query)
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe()
        self._codes[code] = asked
        back = f"{asked['redirect_uri']}?code={code}&state={asked['state']}&session_state=x"
        return web.Response(status=302, headers={"Location": back})

    async def _token(self, request: web.Request) -> web.Response:
        self.asked.append("token")
        body = dict(parse_qsl(await request.text()))
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        by_basic = request.headers.get("Authorization") == f"Basic {basic}"
        by_post = (body.get("client_id"), body.get("client_secret")) == (CLIENT, SECRET)
        if not (by_basic if self.methods == ["client_secret_basic"] else by_post):
            return web.json_response({"error": "invalid_client"}, status=401)
        asked = self._codes.pop(body.get("code", ""), None)  # good once
        digest = hashlib.sha256(body["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            asked is None
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != body["redirect_uri"]
            or body["grant_type"] != "authorization_code"
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        told = {"sub": self.person["sub"]} if self.in_userinfo is not None else self.person
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"], **told}
        token = self.signed(self.twist(claims))
        return web.json_response({"access_token": "an-access-token", "token_type": "Bearer", "id_token": token})

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked.append("keys")
        return web.json_response(KeySet(self.shown).as_dict(private=False))

    async def _userinfo(self, request: web.Request) -> web.Response:
        self.asked.append("userinfo")
        assert request.headers["Authorization"] == "Bearer an-access-token"
        return web.json_response(self.person if self.in_userinfo is None else self.in_userinfo)


def unsigned(claims: dict[str, Any]) -> str:
    """A token of alg none."""
    parts = [b'{"alg":"none","typ":"JWT"}', json.dumps(claims).encode(), b""]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def signed_with_the_public_key(issuer: HostileIssuer) -> Callable[[dict[str, Any]], str]:
    """A token of HS256 whose secret everybody can read: the public key."""
    pem = issuer.key.as_pem(private=False)
    return lambda claims: jwt.encode(
        {"alg": "HS256", "kid": issuer.key.kid}, claims, OctKey.import_key(base64.urlsafe_b64encode(pem)), ["HS256"]
    )


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
