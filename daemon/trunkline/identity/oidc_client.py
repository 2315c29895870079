"""The client of an OpenID Connect issuer: discovery, authorization code with PKCE, ID tokens checked against its keys.

Only asymmetric signatures are accepted, whatever a token's head says. What the issuer says of itself is kept for an
hour; a key that is not known has its keys asked for anew, once in a while.
Source: OpenID Connect Core 1.0, 3.1; RFC 7636; RFC 9700.
"""

import base64
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from authlib.oidc.discovery import get_well_known_url  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from trunkline.identity.limits import Clock
from trunkline.identity.oidc import Identity, OidcRefused, OidcUnavailable, Pending

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SCOPE: Final = "openid email profile"
_KEPT_S: Final = 3600.0  # of what the issuer says of itself
_KEYS_AGAIN_S: Final = 10.0  # between two looks for a key that is not known
_LEEWAY_S: Final = 60  # that its clock may be off
_TIMEOUT: Final = aiohttp.ClientTimeout(total=4)  # s; a login takes three requests at most within the handler's 10
_LONGEST: Final = 256 * 1024  # bytes of an answer
_LONGEST_SUBJECT: Final = 255  # as the specification has it
_PUBLIC: Final = {"RSA", "EC", "OKP"}


class OidcClient:
    """One issuer, for one client that is registered there.

    redirect_url: where the issuer sends browsers back to, as it is registered. client_secret: None for a public client.
    label: for the button of a page. default_role: of users who are made at their first login; None: none are made.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str | None,
        redirect_url: str,
        *,
        label: str = "",
        default_role: str | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self.label = label
        self.default_role = default_role
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_url = redirect_url
        self._clock = clock
        self._metadata: tuple[float, Mapping[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None

    async def begin(self, return_to: str) -> tuple[str, Pending]:
        """Where to send the browser, and what it keeps. Raises OidcUnavailable."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        pending = Pending(state, nonce, verifier, return_to)
        url: str = prepare_grant_uri(
            (await self._discovered())["authorization_endpoint"],
            self._client_id,
            "code",
            self._redirect_url,
            SCOPE,
            pending.state,
            nonce=pending.nonce,
            code_challenge=create_s256_code_challenge(pending.verifier),
            code_challenge_method="S256",
        )
        return url, pending

    async def finish(self, pending: Pending, code: str) -> Identity:
        """Who has come back with this code. Raises OidcRefused, OidcUnavailable."""
        metadata = await self._discovered()
        told = await self._exchange(metadata, pending, code)
        token, access_token = told.get("id_token"), told.get("access_token")
        if not isinstance(token, str):
            raise OidcRefused("the issuer answered without an ID token")
        claims = await self._checked(metadata, token, access_token, pending.nonce)
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise OidcRefused("the ID token names no subject")
        if "email" not in claims and "userinfo_endpoint" in metadata and isinstance(access_token, str):
            claims = {**claims, **await self._userinfo(metadata["userinfo_endpoint"], access_token, subject)}
        verified = claims.get("email_verified") is True and isinstance(claims.get("email"), str)
        name = claims.get("name")
        return Identity(
            subject,
            claims["email"].strip().lower() if verified else None,
            name if isinstance(name, str) and name.isprintable() else "",
        )

    async def _discovered(self) -> Mapping[str, Any]:
        if self._metadata is not None and self._metadata[0] > self._clock():
            return self._metadata[1]
        found = await self._ask("GET", get_well_known_url(self.issuer, external=True), "discovery document")
        if found.get("issuer") != self.issuer:
            raise OidcUnavailable("the discovery document is of another issuer than oidc.issuer: they differ")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
            if name == "userinfo_endpoint" and name not in found:
                continue
            url = found.get(name)
            if not isinstance(url, str) or (urlsplit(url).scheme != "https" and self.issuer.startswith("https:")):
                raise OidcUnavailable(f"the discovery document has no {name}, or one that is not https")
        self._metadata = (self._clock() + _KEPT_S, found)
        return found

    async def _exchange(self, metadata: Mapping[str, Any], pending: Pending, code: str) -> Mapping[str, Any]:
        asked = {"redirect_uri": self._redirect_url, "code": code, "code_verifier": pending.verifier}
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if self._client_secret is None:
            asked["client_id"] = self._client_id
        elif "client_secret_basic" in metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"]):
            both = f"{quote(self._client_id, safe='')}:{quote(self._client_secret, safe='')}"  # RFC 6749, 2.3.1
            headers["Authorization"] = f"Basic {base64.b64encode(both.encode()).decode()}"
        else:
            asked |= {"client_id": self._client_id, "client_secret": self._client_secret}
        body: str = prepare_token_request("authorization_code", **asked)
        return await self._ask(
            "POST", metadata["token_endpoint"], "token endpoint", refuses=True, data=body, headers=headers
        )

    async def _checked(
        self, metadata: Mapping[str, Any], token: str, access_token: object, nonce: str
    ) -> Mapping[str, Any]:
        """The claims of an ID token that the issuer signed, for us, now, and for this login. Raises OidcRefused."""
        keys = await self._key_set(metadata, _key_id(token))
        try:
            decoded = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {
                    "iss": {"essential": True, "value": self.issuer},
                    "aud": {"essential": True, "value": self._client_id},
                },
                {"nonce": nonce, "client_id": self._client_id, "access_token": access_token},
            )
            claims.validate(leeway=_LEEWAY_S)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise OidcRefused(f"its ID token is not accepted ({type(error).__name__})") from error
        return claims  # type: ignore[no-any-return]  # a dict

    async def _key_set(self, metadata: Mapping[str, Any], key_id: str | None) -> KeySet:
        """The issuer's keys; asked for anew where they are old, or do not have the one that signed."""
        now = self._clock()
        if self._keys is not None:
            age_s = now - self._keys[0]
            known = key_id is None or any(key.kid == key_id for key in self._keys[1].keys)
            if age_s < (_KEPT_S if known else _KEYS_AGAIN_S):
                return self._keys[1]
        found = await self._ask("GET", metadata["jwks_uri"], "keys")
        usable = [key for key in found.get("keys", []) if isinstance(key, dict) and key.get("kty") in _PUBLIC]
        try:
            keys = KeySet.import_key_set({"keys": usable})
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise OidcUnavailable("the issuer's keys cannot be read") from error
        self._keys = (now, keys)
        return keys

    async def _userinfo(self, url: str, access_token: str, subject: str) -> Mapping[str, Any]:
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
        found = await self._ask("GET", url, "userinfo", headers=headers)
        if found.get("sub") != subject:  # OpenID Connect Core 1.0, 5.3.2
            raise OidcRefused("the issuer's userinfo is of somebody else")
        return {name: found[name] for name in ("email", "email_verified", "name") if name in found}

    async def _ask(self, method: str, url: str, what: str, *, refuses: bool = False, **options: Any) -> dict[str, Any]:
        """The JSON that the issuer answers. refuses: it may say no. Raises OidcUnavailable, OidcRefused."""
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as client,
                client.request(method, url, allow_redirects=False, **options) as response,
            ):
                if refuses and response.status in (400, 401, 403):
                    raise OidcRefused(f"the issuer did not take the code (HTTP {response.status} of its {what})")
                if response.status != 200:
                    raise OidcUnavailable(f"HTTP {response.status} of its {what}")
                body = b""
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > _LONGEST:
                        raise OidcUnavailable(f"its {what} is longer than {_LONGEST} bytes")
            found = json.loads(body)
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            raise OidcUnavailable(f"its {what} cannot be read ({type(error).__name__})") from error
        if not isinstance(found, dict):
            raise OidcUnavailable(f"its {what} is no JSON object")
        return found


def _key_id(token: str) -> str | None:
    """The id of the key that a token says it is signed with; nothing of it is believed."""
    try:
        head = token.partition(".")[0].encode("ascii")
        found = json.loads(base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4)))
    except (ValueError, RecursionError):
        return None
    return found.get("kid") if isinstance(found, dict) and isinstance(found.get("kid"), str) else None
