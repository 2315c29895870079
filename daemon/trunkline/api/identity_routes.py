"""The routes of users, keys, sessions and the audit; those of admins need the scope that nobody else has."""

from typing import Annotated, Final, Literal

from msgspec import Meta

from trunkline.api import identity_forms as forms
from trunkline.api import sessions, users
from trunkline.api.contract import Answer, Parameter, Route
from trunkline.identity.scopes import ADMIN, ANYBODY
from trunkline.store.users import User

_PRETTY: Final = Parameter(name="pretty", about="1: indented, for human eyes.", type=Literal["0", "1"])

IDENTITY_ROUTES: Final = (
    Route(
        method="POST",
        path="/api/v1/auth/login",
        handler=sessions.login,
        queues=False,  # hashing a password takes longer than the database
        about="Log in: an access token of 15 minutes, and a refresh token as a cookie.",
        tag="auth",
        open=True,
        parameters=(_PRETTY,),
        body=forms.Login,
        answers=(Answer(about="Who is logged in.", type=forms.Session),),
        problems=("login_refused", "login_locked", "refresh_refused", "origin_not_allowed", "passwords_busy"),
    ),
    Route(
        method="POST",
        path=sessions.REFRESH_PATH,
        handler=sessions.refresh,
        about="The next access token, for the cookie of a login or of the last refresh; each is good once.",
        tag="auth",
        open=True,
        parameters=(_PRETTY,),
        answers=(Answer(about="Who is logged in.", type=forms.Session),),
        problems=("refresh_refused", "origin_not_allowed"),
    ),
    Route(
        method="POST",
        path="/api/v1/auth/logout",
        handler=sessions.logout,
        about="End this session.",
        tag="auth",
        scope=ANYBODY,
        answers=(Answer(about="It is over.", status=204),),
        problems=("no_session",),
    ),
    Route(
        method="POST",
        path="/api/v1/auth/logout-everywhere",
        handler=sessions.logout_everywhere,
        about="End all of one's sessions.",
        tag="auth",
        scope=ANYBODY,
        answers=(Answer(about="They are over.", status=204),),
        problems=("no_session",),
    ),
    Route(
        method="GET",
        path="/api/v1/auth/me",
        handler=sessions.me,
        about="Who asks, and which scopes he has.",
        tag="auth",
        scope=ANYBODY,
        parameters=(_PRETTY,),
        answers=(Answer(about="You.", type=forms.Me),),
    ),
    Route(
        method="POST",
        path="/api/v1/auth/password",
        handler=sessions.change_password,
        queues=False,  # hashing a password takes longer than the database
        about="Set one's own password; all of one's sessions end.",
        tag="auth",
        scope=ANYBODY,
        body=forms.ChangePassword,
        answers=(Answer(about="It is set: log in again.", status=204),),
        problems=("no_session", "login_refused", "login_locked", "passwords_busy"),
    ),
    Route(
        method="GET",
        path="/api/v1/users",
        handler=users.list_users,
        about="The users, by email; 1,000 at most.",
        tag="users",
        scope=ADMIN,
        parameters=(_PRETTY,),
        answers=(Answer(about="The users.", type=forms.UserList),),
    ),
    Route(
        method="POST",
        path="/api/v1/users",
        handler=users.create_user,
        queues=False,  # hashing a password takes longer than the database
        about="Make a user.",
        tag="users",
        scope=ADMIN,
        parameters=(_PRETTY,),
        body=forms.NewUser,
        answers=(Answer(about="The user.", status=201, type=User),),
        problems=("email_taken", "passwords_busy"),
    ),
    Route(
        method="GET",
        path="/api/v1/users/{id}",
        handler=users.get_user,
        about="A user.",
        tag="users",
        scope=ADMIN,
        parameters=(_PRETTY,),
        answers=(Answer(about="The user.", type=User),),
        problems=("user_not_found",),
    ),
    Route(
        method="PATCH",
        path="/api/v1/users/{id}",
        handler=users.change_user,
        queues=False,  # hashing a password takes longer than the database
        about="Change a user; what is left out stays. Disabled, or with another password, he is logged out everywhere.",
        tag="users",
        scope=ADMIN,
        parameters=(_PRETTY,),
        body=forms.ChangedUser,
        answers=(Answer(about="The user.", type=User),),
        problems=("user_not_found", "email_taken", "last_admin", "passwords_busy"),
    ),
    Route(
        method="DELETE",
        path="/api/v1/users/{id}",
        handler=users.remove_user,
        about="Delete a user.",
        tag="users",
        scope=ADMIN,
        answers=(Answer(about="He is gone.", status=204),),
        problems=("user_not_found", "last_admin"),
    ),
    Route(
        method="GET",
        path="/api/v1/api-keys",
        handler=users.list_api_keys,
        about="The API keys of the database, those in use first; 1,000 at most.",
        tag="api-keys",
        scope=ADMIN,
        parameters=(_PRETTY,),
        answers=(Answer(about="The keys, without themselves.", type=forms.ApiKeyList),),
    ),
    Route(
        method="POST",
        path="/api/v1/api-keys",
        handler=users.create_api_key,
        about="Make an API key. It is in this answer, and never seen again.",
        tag="api-keys",
        scope=ADMIN,
        parameters=(_PRETTY,),
        body=forms.NewApiKey,
        answers=(Answer(about="The key.", status=201, type=forms.MadeApiKey),),
    ),
    Route(
        method="DELETE",
        path="/api/v1/api-keys/{id}",
        handler=users.remove_api_key,
        about="Revoke an API key, for good. It stays in the list.",
        tag="api-keys",
        scope=ADMIN,
        answers=(Answer(about="It is revoked.", status=204),),
        problems=("key_not_found",),
    ),
    Route(
        method="GET",
        path="/api/v1/audit",
        handler=users.list_audit,
        about="Who changed users, keys and webhooks, who logged in; the newest first.",
        tag="audit",
        scope=ADMIN,
        parameters=(
            Parameter(
                name="limit",
                about=f"How many to a page, {forms.DEFAULT_AUDIT} unless told.",
                type=Annotated[int, Meta(ge=1, le=forms.MAX_AUDIT)],
            ),
            Parameter(name="cursor", about="nextCursor of the page before."),
            _PRETTY,
        ),
        answers=(Answer(about="A page.", type=forms.AuditPage),),
        problems=("bad_cursor",),
    ),
)
