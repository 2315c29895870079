"""`trunkline admin`: users and API keys, straight in the database; the first admin has no other way in."""

import argparse
import asyncio
import getpass
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from trunkline.config import Account, Database, load_sections
from trunkline.config_reading import ConfigError
from trunkline.identity.scopes import SCOPES, Role

if TYPE_CHECKING:
    from trunkline.store.audit import By
    from trunkline.store.pool import Pool

_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f\x7f]{1,200}@[^@\s\x00-\x1f\x7f]{1,50}")

Work = Callable[["Pool", UUID, "By"], Awaitable[int]]


class Refused(Exception):
    """It was asked wrongly; the text says what would be right."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--config, and what to do."""
    parser.add_argument(
        "--config", metavar="FILE", help="settings; only [account] and [database] are read (default: trunkline.toml)"
    )
    actions = parser.add_subparsers(title="what to do", metavar="ACTION", dest="action", required=True)

    user = actions.add_parser("create-user", help="make a user who can log in; the password is asked for")
    user.add_argument("email", metavar="EMAIL")
    user.add_argument("--role", choices=[role.value for role in Role], default=Role.AGENT.value)
    user.add_argument("--name", default="", help="as others see it")
    user.add_argument("--extension", help="the phone he works at, such as 1001")
    user.set_defaults(work=_create_user)

    password = actions.add_parser("set-password", help="give a user another password")
    password.add_argument("email", metavar="EMAIL")
    password.set_defaults(work=_set_password)

    actions.add_parser("list-users", help="who there is").set_defaults(work=_list_users)

    key = actions.add_parser(
        "create-key",
        help="make an API key and print it, this once",
        epilog="scopes:\n" + "\n".join(f"  {name:18} {about}" for name, about in SCOPES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    key.add_argument("name", metavar="NAME", help="what it is for, such as crm")
    key.add_argument("--scopes", nargs="+", required=True, choices=list(SCOPES), metavar="SCOPE", help="what it may do")
    key.add_argument("--days", type=int, help="how long it is good (left out: until it is revoked)")
    key.set_defaults(work=_create_key)

    actions.add_parser("list-keys", help="which keys there are, and when each was used").set_defaults(work=_list_keys)

    revoke = actions.add_parser("revoke-key", help="revoke a key, for good; it is refused within seconds")
    revoke.add_argument("key", metavar="KEY", help="its id, or the beginning that list-keys shows")
    revoke.set_defaults(work=_revoke_key)


def main(arguments: argparse.Namespace) -> int:
    """Do it; 0 well, 1 the database cannot be used, 2 asked wrongly."""
    import asyncpg

    from trunkline.store.faults import advice

    try:
        found = load_sections(arguments.config, ("account", "database"))
        account, database = found["account"], found["database"]
        assert isinstance(account, Account)  # noqa: S101  # what was asked for
        assert isinstance(database, Database)  # noqa: S101
        return asyncio.run(_run(database.url.reveal(), account.name, arguments.work(arguments)))
    except (ConfigError, Refused) as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        print(f"the database cannot be used ({type(error).__name__}): {advice(error)}", file=sys.stderr)
        return 1


async def _run(url: str, account: str, work: Work) -> int:
    from trunkline.store.audit import By
    from trunkline.store.pool import open_pool
    from trunkline.store.queries import select_account
    from trunkline.store.writer_sql import INSERT_ACCOUNT

    async with await open_pool(url, max_size=1) as pool:
        await pool.execute(INSERT_ACCOUNT, account)
        account_id = await select_account(pool, account)
        assert account_id is not None  # noqa: S101  # it was just made
        return await work(pool, account_id, By(f"cli:{getpass.getuser()}"))


def _password(email: str) -> str:
    """Asked for twice, or the first line of what is piped in: an argument would be seen by whoever lists processes."""
    from trunkline.identity.passwords import LONGEST, SHORTEST

    if sys.stdin.isatty():
        password = getpass.getpass(f"password of {email}: ")
        if getpass.getpass("once more: ") != password:
            raise Refused("the two are not the same")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not SHORTEST <= len(password) <= LONGEST:
        raise Refused(f"the password has {len(password)} characters; allowed: {SHORTEST} to {LONGEST}")
    return password


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise Refused(f"{text!r} is no email; allowed: NAME@HOST")
    return text.lower()


def _line(what: str, text: str) -> str:
    if not text.isprintable() or len(text) > 200:
        raise Refused(f"{what}: allowed: up to 200 printable characters")
    return text.strip()


def _create_user(arguments: argparse.Namespace) -> Work:
    from trunkline.identity.passwords import hash_password
    from trunkline.store.users import insert_user

    email = _email(arguments.email)
    name = _line("name", arguments.name)
    extension = _line("extension", arguments.extension) if arguments.extension else None
    hashed = hash_password(_password(email))

    async def work(pool: "Pool", account_id: UUID, by: "By") -> int:
        user = await insert_user(
            pool, account_id, by, email=email, name=name, role=arguments.role, extension=extension, password_hash=hashed
        )
        if user is None:
            raise Refused(f"there is a user {email} already: `trunkline admin set-password` gives another password")
        print(f"{user.role} {user.email} can log in: POST /api/v1/auth/login")
        return 0

    return work


def _set_password(arguments: argparse.Namespace) -> Work:
    from trunkline.identity.passwords import hash_password
    from trunkline.store.users import select_user_of_email, update_user

    email = _email(arguments.email)
    hashed = hash_password(_password(email))

    async def work(pool: "Pool", account_id: UUID, by: "By") -> int:
        user = await select_user_of_email(pool, account_id, email)
        if user is None:
            raise Refused(f"there is no user {email}: `trunkline admin list-users` says who there is")
        await update_user(pool, account_id, by, user.id, {"password_hash": hashed})
        print(f"{email} has a new password, and is logged out everywhere")
        return 0

    return work


def _list_users(arguments: argparse.Namespace) -> Work:
    from trunkline.store.users import select_users

    async def work(pool: "Pool", account_id: UUID, by: "By") -> int:
        rows = [
            (user.email, user.role, user.extension or "", "disabled" if user.disabled_at else "", user.name)
            for user in await select_users(pool, account_id)
        ]
        _table(("EMAIL", "ROLE", "EXTENSION", "", "NAME"), rows)
        return 0

    return work


def _create_key(arguments: argparse.Namespace) -> Work:
    from trunkline.identity.keys import make_key
    from trunkline.store.api_keys import insert_key

    name = _line("name", arguments.name)
    if not name:
        raise Refused("the name is empty; allowed: what the key is for")
    if arguments.days is not None and not 1 <= arguments.days <= 36500:
        raise Refused(f"--days {arguments.days}: allowed: 1 to 36500")

    async def work(pool: "Pool", account_id: UUID, by: "By") -> int:
        made = make_key()
        until = None if arguments.days is None else datetime.now(UTC) + timedelta(days=arguments.days)
        await insert_key(
            pool, account_id, by, name=name, prefix=made.prefix, digest=made.digest,
            scopes=sorted(set(arguments.scopes)), expires_at=until,
        )  # fmt: skip
        print("keep it: this is the only time it is shown", file=sys.stderr)
        print(made.text)
        return 0

    return work


def _list_keys(arguments: argparse.Namespace) -> Work:
    from trunkline.store.api_keys import select_keys

    async def work(pool: "Pool", account_id: UUID, by: "By") -> int:
        now = datetime.now(UTC)
        rows = []
        for key in await select_keys(pool, account_id):
            expired = key.expires_at is not None and key.expires_at <= now
            stands = "revoked" if key.revoked_at else "expired" if expired else "good"
            used = key.last_used_at.strftime("%Y-%m-%d %H:%M") if key.last_used_at else "never"
            rows.append((key.prefix, stands, used, key.name, " ".join(key.scopes)))
        _table(("KEY", "IS", "LAST USED (UTC)", "NAME", "SCOPES"), rows)
        return 0

    return work


def _revoke_key(arguments: argparse.Namespace) -> Work:
    from trunkline.store.api_keys import revoke_key, select_keys_of

    async def work(pool: "Pool", account_id: UUID, by: "By") -> int:
        meant = await select_keys_of(pool, account_id, arguments.key)
        if len(meant) != 1:
            raise Refused(f"{arguments.key!r} is {len(meant)} keys; allowed: an id or beginning of `list-keys`")
        await revoke_key(pool, account_id, by, meant[0].id)
        print(f"{meant[0].prefix}… ({meant[0].name}) is revoked")
        return 0

    return work


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    widths = [max(len(str(row[n])) for row in (head, *rows)) for n in range(len(head))]
    for row in (head, *rows):
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
