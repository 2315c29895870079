"""The routes of integrations, declared; routes.py has the others."""

from typing import Final, Literal

from trunkline.api import integrations
from trunkline.api.change import Repeats
from trunkline.api.contract import Answer, Parameter, Route
from trunkline.api.listing import listing_parameters
from trunkline.store.integrations import INTEGRATIONS as LISTING
from trunkline.store.integrations import Integration

_PRETTY: Final = Parameter(name="pretty", about="1: indented, for human eyes.", type=Literal["0", "1"])
_TAG: Final = "integrations"
_PATH: Final = "/api/v1/integrations"
_ONE: Final = ("integration_not_found",)

INTEGRATIONS: Final = (
    Route(
        method="GET",
        path=_PATH,
        handler=integrations.list_integrations,
        about="The integrations, the oldest first.",
        tag=_TAG,
        sparse=True,
        parameters=(*listing_parameters(LISTING), _PRETTY),
        answers=(Answer(about="A page.", type=integrations.IntegrationPage),),
        problems=("bad_cursor",),
    ),
    Route(
        method="POST",
        path=_PATH,
        handler=integrations.add_integration,
        about="Add an integration; those of PBXs are added by the core.",
        tag=_TAG,
        versioned=True,
        repeats=Repeats.KEPT,
        parameters=(_PRETTY,),
        body=integrations.NewIntegration,
        answers=(Answer(about="The integration.", status=201, type=Integration),),
        problems=("integration_taken", "secrets_not_configured"),
    ),
    Route(
        method="GET",
        path=f"{_PATH}/{{id}}",
        handler=integrations.get_integration,
        about="An integration, with the names of its secrets.",
        tag=_TAG,
        versioned=True,
        sparse=True,
        parameters=(_PRETTY,),
        answers=(Answer(about="The integration.", type=Integration),),
        problems=_ONE,
    ),
    Route(
        method="PATCH",
        path=f"{_PATH}/{{id}}",
        handler=integrations.change_integration,
        about="Change an integration; what is left out stays. Of a PBX only the name can be changed.",
        tag=_TAG,
        versioned=True,
        parameters=(_PRETTY,),
        body=integrations.IntegrationChange,
        answers=(Answer(about="The integration as it is now.", type=Integration),),
        problems=(*_ONE, "integration_of_core", "integration_taken", "secrets_not_configured"),
    ),
    Route(
        method="DELETE",
        path=f"{_PATH}/{{id}}",
        handler=integrations.remove_integration,
        about="Delete an integration; its calls, conversations and messages stay.",
        tag=_TAG,
        versioned=True,
        parameters=(_PRETTY,),
        answers=(Answer(about="It is gone.", status=204),),
        problems=(*_ONE, "integration_in_use"),
    ),
    Route(
        method="POST",
        path=f"{_PATH}/{{id}}/test",
        handler=integrations.test_integration,
        queues=False,  # it may ask Telegram
        about="Say what can be known of an integration now: of a PBX how its link stands, of others their secrets.",
        tag=_TAG,
        repeats=Repeats.REFUSED,
        parameters=(_PRETTY,),
        answers=(Answer(about="What was found.", type=integrations.IntegrationTest),),
        problems=_ONE,
    ),
)
