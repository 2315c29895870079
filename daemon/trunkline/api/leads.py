"""`/api/v1/leads`: who calls. Listed, found by number, made, changed, merged, deleted."""

from typing import Annotated, Any, Final
from uuid import UUID, uuid4

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType, structs

from trunkline.api.change import changing, check_version, tell
from trunkline.api.contract import BODY, QUERY
from trunkline.api.identity_forms import VISIBLE, Email, Line, Name
from trunkline.api.listing import Narrowed, list_page
from trunkline.api.parameters import LONGEST_NUMBER, read_id, shortened
from trunkline.api.problem import Problem, bad_parameter
from trunkline.api.representation import version_of
from trunkline.api.sessions import by
from trunkline.api.state import STATE, json_response
from trunkline.calls.numbers import e164_as_typed
from trunkline.calls.record import encode
from trunkline.store.audit import insert_audit
from trunkline.store.events import NewEvent
from trunkline.store.leads import (
    BY_EMAIL,
    BY_PHONE,
    BY_TEXT,
    LEADS,
    MOST_PHONES,
    Lead,
    LeadStatus,
    Phone,
    Values,
    delete_lead,
    insert_leads,
    lead_of_row,
    lock_lead,
    lock_two,
    merge_leads,
    select_lead,
    select_survivor,
    update_lead,
    values_of,
)
from trunkline.store.pool import Connection

LONGEST_QUERY: Final = 100  # characters of ?q=
LONGEST_PHONE: Final = 50
LONGEST_EXTERNAL: Final = 255
STATUSES: Final = ("NEW", "CONTACTED", "QUALIFIED", "CONVERTED", "LOST")

PhoneText = Annotated[str, Meta(min_length=1, max_length=LONGEST_PHONE, pattern=VISIBLE)]
Phones = Annotated[list[PhoneText], Meta(max_length=MOST_PHONES)]
ExternalId = Annotated[str, Meta(min_length=1, max_length=LONGEST_EXTERNAL, pattern=VISIBLE)]


class NewLead(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A lead to be made. phones: as they are written; the first one is shown first."""

    name: Line = ""
    phones: Phones = []
    email: Email | None = None
    status: LeadStatus = "NEW"
    source: Name | None = None
    external_id: ExternalId | None = None
    metadata: dict[str, Any] | None = None


class LeadChange(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What of a lead is to become otherwise; what is left out stays, null empties. phones and metadata as a whole."""

    name: Line | UnsetType | None = UNSET
    phones: Phones | UnsetType | None = UNSET
    email: Email | UnsetType | None = UNSET
    status: LeadStatus | UnsetType = UNSET
    source: Name | UnsetType | None = UNSET
    external_id: ExternalId | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET


class Merge(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The lead that is to be merged into the one of the path."""

    lead_id: UUID


class LeadPage(msgspec.Struct, rename="camel"):
    """A page of leads."""

    items: list[Lead]
    next_cursor: str | None  # what ?cursor= takes for the page behind this one; null: this is the last


async def list_leads(request: web.Request) -> web.Response:
    """One page of leads, by whatever they are narrowed to."""
    asked, region = request[QUERY], request.app[STATE].region
    conditions: list[str] = []
    arguments: list[object] = []

    def narrow(condition: str, argument: object) -> None:
        arguments.append(argument)
        conditions.append(condition.format(f"${len(arguments) + 1}"))

    if "phone" in asked:
        narrow(BY_PHONE, _asked_number(asked["phone"][0], region))
    if "email" in asked:
        email = asked["email"][0].strip()
        narrow(BY_EMAIL, sorted({email, email.lower()}))
    if "externalId" in asked:
        narrow("lead.external_id = {}", asked["externalId"][0])
    if "status" in asked:
        narrow("lead.status = ANY ({}::text[])", _statuses(asked["status"]))
    if "q" in asked:
        narrow(BY_TEXT, _like(asked["q"][0]))
    return await list_page(request, LEADS, Narrowed(tuple(conditions), tuple(arguments), arguments), lead_of_row)


async def create_lead(request: web.Request) -> web.Response:
    """Make a lead; past calls of its numbers that are nobody's become its own."""
    asked: NewLead = request[BODY]  # type: ignore[assignment]  # the route's body
    values = Values(
        asked.name.strip(),
        read_phones(asked.phones, request.app[STATE].region),
        asked.email and asked.email.lower(),
        asked.status,
        asked.source and asked.source.strip(),
        asked.external_id and asked.external_id.strip(),
        asked.metadata,
    )
    connection, account_id = await changing(request), await request.app[STATE].account_id()
    lead_id = uuid4()
    if not await insert_leads(connection, account_id, [(lead_id, values)]):
        raise _taken()
    lead = await select_lead(connection, account_id, lead_id)
    assert lead is not None  # noqa: S101  # it was just made
    tell(request, told("lead.created", lead))
    response = json_response(request, encode(lead), status=201, version=version(lead))
    response.headers["Location"] = f"/api/v1/leads/{lead.id}"
    return response


async def get_lead(request: web.Request) -> web.Response:
    """One lead; of one that was merged into another one, that other, and Content-Location says its own URL."""
    state, lead_id = request.app[STATE], _lead_id(request)
    account_id = await state.account_id()
    lead = await select_lead(state.pool, account_id, lead_id)
    if lead is not None:
        return json_response(request, encode(lead), version=version(lead))
    survivor = await select_survivor(state.pool, account_id, lead_id)
    lead = None if survivor is None else await select_lead(state.pool, account_id, survivor)
    if lead is None:
        raise _unknown()
    response = json_response(request, encode(lead), version=version(lead))
    response.headers["Content-Location"] = f"/api/v1/leads/{lead.id}"
    return response


async def change_lead(request: web.Request) -> web.Response:
    """Change a lead; what is left out stays."""
    asked: LeadChange = request[BODY]  # type: ignore[assignment]  # the route's body
    lead_id = _lead_id(request)
    connection, account_id = await changing(request), await request.app[STATE].account_id()
    lead = await _locked(connection, account_id, lead_id)
    check_version(request, version(lead))
    values = _changed(lead, asked, request.app[STATE].region)
    if values != values_of(lead):
        changed = await update_lead(connection, account_id, lead, values)
        if changed is None:
            raise _taken()
        lead = changed
        tell(request, told("lead.updated", lead))
    return json_response(request, encode(lead), version=version(lead))


async def remove_lead(request: web.Request) -> web.Response:
    """Delete a lead. Its calls and conversations stay, and are nobody's."""
    lead_id = _lead_id(request)
    connection, account_id = await changing(request), await request.app[STATE].account_id()
    lead = await _locked(connection, account_id, lead_id)
    check_version(request, version(lead))
    await delete_lead(connection, account_id, lead.id)
    await insert_audit(connection, account_id, by(request), "lead.deleted", f"lead:{lead.id}")
    tell(request, told("lead.deleted", lead))
    return web.Response(status=204)


async def merge_lead(request: web.Request) -> web.Response:
    """Merge another lead into this one: what it had follows, its id leads here from now on."""
    asked: Merge = request[BODY]  # type: ignore[assignment]  # the route's body
    lead_id = _lead_id(request)
    connection, account_id = await changing(request), await request.app[STATE].account_id()
    if asked.lead_id == lead_id:
        raise Problem("bad_body", "leadId: is this lead itself; give the one that is to be merged into it.")
    into, folded = await lock_two(connection, account_id, lead_id, asked.lead_id)
    if into is None:
        raise await _missing(connection, account_id, lead_id)
    if folded is None:
        raise Problem("lead_unknown", "leadId: no lead has this id, or it was merged already.")
    lead = await merge_leads(connection, account_id, into, folded)
    await insert_audit(connection, account_id, by(request), "lead.merged", f"lead:{lead.id}", f"lead:{folded.id}")
    tell(request, told("lead.merged", lead, mergedId=str(folded.id)))
    return json_response(request, encode(lead), version=version(lead))


def version(lead: Lead) -> str:
    """What If-Match goes by."""
    return version_of(values_of(lead))


def told(type_: str, lead: Lead, **more: str) -> NewEvent:
    """The event that tells of a lead."""
    return NewEvent(type_, encode({"lead": lead, **more}), lead_id=lead.id)


def read_phones(texts: list[str], region: str | None) -> list[Phone]:
    """Numbers as they were written, each once, with what callers are matched by."""
    found: dict[str, Phone] = {}
    for text in texts:
        phone = Phone(text.strip(), e164_as_typed(text, region))
        found.setdefault(phone.e164 or phone.number, phone)
    return list(found.values())


def _changed(lead: Lead, asked: LeadChange, region: str | None) -> Values:
    given: dict[str, Any] = {name: value for name, value in structs.asdict(asked).items() if value is not UNSET}
    for name in ("name", "source", "external_id"):
        if isinstance(given.get(name), str):
            given[name] = given[name].strip()
    if isinstance(given.get("email"), str):
        given["email"] = given["email"].lower()
    if "name" in given:
        given["name"] = given["name"] or ""
    if "phones" in given:
        given["phones"] = read_phones(given["phones"] or [], region)
    return values_of(lead)._replace(**given)


async def _locked(connection: Connection, account_id: UUID, lead_id: UUID) -> Lead:
    lead = await lock_lead(connection, account_id, lead_id)
    if lead is None:
        raise await _missing(connection, account_id, lead_id)
    return lead


async def _missing(connection: Connection, account_id: UUID, lead_id: UUID) -> Problem:
    """Whoever changes a lead is to know which one it is: what was merged is not changed by its old id."""
    survivor = await select_survivor(connection, account_id, lead_id)
    if survivor is None:
        return _unknown()
    return Problem(
        "lead_merged", f"This lead was merged into {survivor}: GET that, and change it there.", leadId=str(survivor)
    )


def _lead_id(request: web.Request) -> UUID:
    lead_id = read_id(request)
    if lead_id is None:
        raise _unknown()
    return lead_id


def _unknown() -> Problem:
    return Problem("lead_not_found", "No lead has this id. GET /api/v1/leads lists those there are.")


def _taken() -> Problem:
    return Problem(
        "external_id_taken",
        "externalId: another lead has it. GET /api/v1/leads?externalId= finds it: change or merge it.",
    )


def _asked_number(text: str, region: str | None) -> str:
    # A + that was not written %2B arrives as a space, and no number begins with one.
    given = "+" + text.strip() if text.startswith(" ") else text.strip()
    number = e164_as_typed(given, region) if len(given) <= LONGEST_NUMBER else None
    if number is None:
        where = f"in {region}" if region else "without account.region in the settings"
        raise bad_parameter(
            "phone",
            f"{shortened(text)!r} is no number that somebody can be called at {where}. Write it in E.164, such as "
            "%2B442070001001.",
        )
    return number


def _statuses(asked: list[str]) -> list[str]:
    words = sorted({word.strip().upper() for word in asked})
    for word in words:
        if word not in STATUSES:
            detail = f"{shortened(word)!r} is not known; allowed: {', '.join(STATUSES)}."
            raise bad_parameter("status", detail, allowed=list(STATUSES))
    return [word.lower() for word in words]


def _like(text: str) -> str:
    """The pattern of what holds a text somewhere."""
    if len(text) > LONGEST_QUERY:
        raise bad_parameter("q", f"is {len(text)} characters long; allowed: 1 to {LONGEST_QUERY}.")
    escaped = text.strip().replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"
