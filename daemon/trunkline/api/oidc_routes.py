"""The routes of logging in by an OpenID Connect issuer."""

from typing import Annotated, Final, Literal

from msgspec import Meta

from trunkline.api import oidc
from trunkline.api.change import Repeats
from trunkline.api.contract import Answer, Parameter, Route
from trunkline.identity.scopes import ADMIN
from trunkline.store.identities import UserIdentity

_PRETTY: Final = Parameter(name="pretty", about="1: indented, for human eyes.", type=Literal["0", "1"])
_Text = Annotated[str, Meta(min_length=1, max_length=4096)]

OIDC_ROUTES: Final = (
    Route(
        method="GET",
        path="/api/v1/auth/methods",
        handler=oidc.methods,
        queues=False,
        about="How one can log in: by a password, and at an issuer where one is configured.",
        tag="auth",
        open=True,
        parameters=(_PRETTY,),
        answers=(Answer(about="The ways.", type=oidc.Methods),),
    ),
    Route(
        method="GET",
        path=oidc.LOGIN_PATH,
        handler=oidc.oidc_login,
        queues=False,  # it may ask the issuer first
        about="Log in at the issuer: a browser is sent there, and comes back to returnTo with the refresh cookie.",
        tag="auth",
        open=True,
        parameters=(Parameter(name="returnTo", about="A path of this server, / unless told.", type=_Text),),
        answers=(Answer(about="To the issuer.", status=302),),
        problems=("oidc_not_configured", "oidc_unavailable"),
    ),
    Route(
        method="GET",
        path=oidc.CALLBACK_PATH,
        handler=oidc.oidc_callback,
        queues=False,  # it asks the issuer
        about="Where the issuer sends browsers back to; the redirect URL to register there.",
        tag="auth",
        open=True,
        lenient=True,  # a client has to pass over what it does not know (RFC 6749, 4.1.2)
        parameters=tuple(
            Parameter(name=name, about=about, type=_Text)
            for name, about in (
                ("code", "The code that the issuer gave."),
                ("state", "The state that the login began with."),
                ("iss", "The issuer (RFC 9207)."),
                ("error", "Why there is no code."),
            )
        ),
        answers=(Answer(about="To returnTo.", status=302),),
        problems=("oidc_not_configured", "oidc_unavailable", "oidc_refused", "login_locked"),
    ),
    Route(
        method="GET",
        path="/api/v1/users/{id}/identities",
        handler=oidc.list_identities,
        about="Which subjects of issuers a user is tied to.",
        tag="users",
        scope=ADMIN,
        parameters=(_PRETTY,),
        answers=(Answer(about="Them.", type=oidc.IdentityList),),
        problems=("user_not_found",),
    ),
    Route(
        method="POST",
        path="/api/v1/users/{id}/identities",
        handler=oidc.add_identity,
        about="Tie a user to a subject of an issuer, who can log in as him from now on.",
        tag="users",
        scope=ADMIN,
        repeats=Repeats.KEPT,
        parameters=(_PRETTY,),
        body=oidc.NewIdentity,
        answers=(Answer(about="The tie.", status=201, type=UserIdentity),),
        problems=("user_not_found", "identity_taken"),
    ),
    Route(
        method="DELETE",
        path="/api/v1/users/{id}/identities/{identityId}",
        handler=oidc.remove_identity,
        about="Untie a user from a subject. Sessions that he has go on.",
        tag="users",
        scope=ADMIN,
        answers=(Answer(about="It is gone.", status=204),),
        problems=("user_not_found", "identity_not_found"),
    ),
)
