"""The routes of leads, declared; routes.py has the others."""

from typing import Annotated, Final, Literal

from msgspec import Meta

from trunkline.api import lead_import, leads
from trunkline.api.change import Repeats
from trunkline.api.contract import Answer, Parameter, Route
from trunkline.api.listing import listing_parameters
from trunkline.api.parameters import LONGEST_NUMBER
from trunkline.store.leads import LEADS, Lead, LeadStatus

_PRETTY: Final = Parameter(name="pretty", about="1: indented, for human eyes.", type=Literal["0", "1"])
_PATH: Final = "/api/v1/leads"
_ONE: Final = ("lead_not_found",)
_CHANGED: Final = (*_ONE, "lead_merged")

LEAD_ROUTES: Final = (
    Route(
        method="GET",
        path=_PATH,
        handler=leads.list_leads,
        about="The leads, the newest first unless sorted otherwise.",
        tag="leads",
        sparse=True,
        parameters=(
            Parameter(
                name="phone",
                about="Who has this number, however it is written: 020 7000 1001 where account.region is GB. + is %2B.",
                type=Annotated[str, Meta(min_length=1, max_length=LONGEST_NUMBER)],
            ),
            Parameter(name="email", about="Who has this email.", type=Annotated[str, Meta(min_length=1)]),
            Parameter(
                name="externalId",
                about="Who has this id in the other CRM.",
                type=Annotated[str, Meta(min_length=1)],
            ),
            Parameter(name="status", about="Leads in one of these states.", type=LeadStatus, many=True),
            Parameter(
                name="q",
                about="Whose name, email or number holds this, in whatever case.",
                type=Annotated[str, Meta(min_length=1, max_length=leads.LONGEST_QUERY)],
            ),
            *listing_parameters(LEADS),
            _PRETTY,
        ),
        answers=(Answer(about="A page.", type=leads.LeadPage),),
        problems=("bad_cursor",),
    ),
    Route(
        method="POST",
        path=_PATH,
        handler=leads.create_lead,
        about="Make a lead. Past calls of its numbers that are nobody's become its own.",
        tag="leads",
        repeats=Repeats.KEPT,
        parameters=(_PRETTY,),
        body=leads.NewLead,
        answers=(Answer(about="The lead.", status=201, type=Lead),),
        problems=("external_id_taken",),
    ),
    Route(
        method="POST",
        path=f"{_PATH}/import",
        handler=lead_import.import_leads,
        queues=False,  # it waits for the client most of the time, and stands in the line for each batch
        about="Take the leads of a CSV file, whose first line names the columns. One with an externalId or a number "
        "that a lead has already is not made again, so a file may be sent twice.",
        tag="leads",
        scope="leads:manage",
        repeats=Repeats.REFUSED,
        takes="text/csv",
        longest_body=lead_import.LONGEST_FILE,
        parameters=(
            Parameter(name="dryRun", about="1: say what would become of it, and do nothing.", type=Literal["0", "1"]),
            Parameter(
                name="onDuplicate",
                about="What becomes of a row whose lead is there: skip, unless told, or update by what the row has.",
                type=Literal["skip", "update"],
            ),
            Parameter(
                name="map",
                about=f"FIELD:HEADER for each column, where they are not called so: {', '.join(lead_import.FIELDS)}.",
                type=Annotated[str, Meta(pattern=rf"^({'|'.join(lead_import.FIELDS)}):.+$", max_length=200)],
                many=True,
            ),
            _PRETTY,
        ),
        answers=(Answer(about="What became of each row.", type=lead_import.ImportReport),),
        problems=("bad_csv", "import_stopped", "not_csv"),
    ),
    Route(
        method="GET",
        path=f"{_PATH}/{{id}}",
        handler=leads.get_lead,
        about="A lead; one that was merged into another one is that other.",
        tag="leads",
        versioned=True,
        sparse=True,
        parameters=(_PRETTY,),
        answers=(Answer(about="The lead.", type=Lead),),
        problems=_ONE,
    ),
    Route(
        method="PATCH",
        path=f"{_PATH}/{{id}}",
        handler=leads.change_lead,
        about="Change a lead; what is left out stays.",
        tag="leads",
        versioned=True,
        parameters=(_PRETTY,),
        body=leads.LeadChange,
        answers=(Answer(about="The lead as it is now.", type=Lead),),
        problems=(*_CHANGED, "external_id_taken"),
    ),
    Route(
        method="DELETE",
        path=f"{_PATH}/{{id}}",
        handler=leads.remove_lead,
        about="Delete a lead. Its calls and conversations stay, and are nobody's.",
        tag="leads",
        scope="leads:manage",
        versioned=True,
        answers=(Answer(about="It is gone.", status=204),),
        problems=_CHANGED,
    ),
    Route(
        method="POST",
        path=f"{_PATH}/{{id}}/merge",
        handler=leads.merge_lead,
        about="Merge another lead into this one: its calls, conversations, deals and bookings follow.",
        tag="leads",
        scope="leads:manage",
        repeats=Repeats.KEPT,
        parameters=(_PRETTY,),
        body=leads.Merge,
        answers=(Answer(about="The lead that stays.", type=Lead),),
        problems=(*_CHANGED, "lead_unknown"),
    ),
)
