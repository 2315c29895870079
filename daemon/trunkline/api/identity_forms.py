"""What the routes of users, keys and sessions take and answer; as JSON, in camelCase."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from trunkline.identity.passwords import LONGEST, SHORTEST
from trunkline.identity.scopes import SCOPES
from trunkline.store.api_keys import ApiKey
from trunkline.store.audit import AuditEntry
from trunkline.store.users import RoleWord, User

Email = Annotated[str, Meta(min_length=3, max_length=254, pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$")]
Line = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
VISIBLE: Final = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"  # one line, not blank
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=VISIBLE)]
Extension = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[0-9A-Za-z*#._-]+$")]
NewPassword = Annotated[str, Meta(min_length=SHORTEST, max_length=LONGEST)]
GivenPassword = Annotated[str, Meta(min_length=1, max_length=LONGEST)]

if TYPE_CHECKING:
    Scope = str
else:
    Scope = Literal[tuple(SCOPES)]


class _Body(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A body in which every field is known."""


class Login(_Body):
    """Who wants to log in."""

    email: Annotated[str, Meta(min_length=1, max_length=254)]
    password: GivenPassword


class ChangePassword(_Body):
    """A user's own password, and what it is to be."""

    current: GivenPassword
    new: NewPassword


class NewUser(_Body):
    """A user to be made. Without a password nobody can log in as him until one is set."""

    email: Email
    role: RoleWord
    name: Line = ""
    extension: Extension | None = None
    password: NewPassword | None = None


class ChangedUser(_Body):
    """What is to be changed of a user; what is left out stays."""

    email: Email | UnsetType = UNSET
    role: RoleWord | UnsetType = UNSET
    name: Line | UnsetType = UNSET
    extension: Extension | UnsetType | None = UNSET
    password: NewPassword | UnsetType = UNSET  # logs him out everywhere, and unlocks him
    disabled: bool | UnsetType = UNSET  # true: logs him out everywhere


class NewApiKey(_Body):
    """A key to be made."""

    name: Name
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=len(SCOPES))]
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None  # null: never


class MadeApiKey(ApiKey, rename="camel", frozen=True, kw_only=True):
    """A key that was just made, with itself: it is never shown again."""

    key: str


class Session(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Somebody is logged in. The refresh token is a cookie that only the refresh route is sent."""

    access_token: str
    expires_in: int  # s
    user: User
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # the type of it


class Me(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Who asks."""

    kind: Literal["SETTINGS_KEY", "API_KEY", "USER", "LOOPBACK"]
    actor: str  # as the audit names him
    scopes: list[str]
    user: User | None


class UserList(msgspec.Struct, frozen=True):
    """Users."""

    items: list[User]


class ApiKeyList(msgspec.Struct, frozen=True):
    """API keys."""

    items: list[ApiKey]


class AuditPage(msgspec.Struct, rename="camel", frozen=True):
    """A page of the audit, the newest first."""

    items: list[AuditEntry]
    next_cursor: str | None  # what ?cursor= takes for the page behind this one; null: this is the last


MAX_AUDIT: Final = 200
DEFAULT_AUDIT: Final = 50
