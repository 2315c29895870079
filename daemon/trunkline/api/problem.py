"""Errors as RFC 9457 problems: what is wrong, where, and what to do; `code` is stable, for programs to go by."""

from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

CONTENT_TYPE = "application/problem+json"
_encode = msgspec.json.Encoder().encode


class Problem(Exception):
    """A request that is answered with an error. `more` are further members of the body, `headers` of the answer."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.more = more

    def response(self, request_id: str) -> web.Response:
        """Return the answer."""
        body = {
            "type": f"urn:trunkline:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.more,
            "requestId": request_id,
        }
        return web.Response(
            body=_encode(body), status=self.status, headers={**self.headers, "Content-Type": CONTENT_TYPE}
        )


def bad_parameter(name: str, detail: str, **more: Any) -> Problem:
    """Return the problem of a query parameter that cannot be used."""
    return Problem(400, "bad_parameter", f"{name}: {detail}", parameter=name, **more)
