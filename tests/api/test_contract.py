"""The OpenAPI document and what is served are one: schemathesis asks everything that the document allows, and more."""

import asyncio
import re
import sys
from pathlib import Path
from uuid import UUID

import pytest
from served import Serve, Served, insert_calls

from trunkline.api.problem import EVERYWHERE, PROBLEMS
from trunkline.api.routes import ROUTES
from trunkline.embedded.s3 import S3Server
from trunkline.inbox.secrets import Vault
from trunkline.objects.s3 import ObjectStore
from trunkline.store.pool import Pool

pytestmark = pytest.mark.asyncio

KEY = "a-key-of-the-test"
# That number excludes from and to, and a cursor has to be one of ours, is nothing that OpenAPI can say.
NOT_SAID = "positive_data_acceptance"
API = Path(__file__).parents[2] / "daemon" / "trunkline" / "api"


async def test_every_route_that_is_served_is_described_and_no_other(shared: Served) -> None:
    status, document = await shared.get("/api/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")
    described = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert described == {(route.method, route.path) for route in ROUTES if route.tag is not None}
    assert len(described) == len(
        {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    )


async def test_what_a_route_refuses_is_declared() -> None:
    raised = {code for file in API.glob("*.py") for code in re.findall(r'Problem\(\s*"(\w+)"', file.read_text())}
    assert raised | {"bad_parameter"} == set(PROBLEMS)
    declared = {code for route in ROUTES for code in route.problems}
    assert declared | set(EVERYWHERE) <= set(PROBLEMS)


async def test_the_index_lists_every_route(shared: Served) -> None:
    _, body = await shared.raw("/")
    for route in ROUTES:
        assert route.tag is None or route.path in body.decode()


async def test_schemathesis_finds_nothing(
    serve: Serve, pool: Pool, account_id: UUID, s3: S3Server, tmp_path: Path
) -> None:
    await insert_calls(pool, account_id, 30)
    store = ObjectStore(s3.endpoint, "recordings", s3.access_key, s3.secret_key)
    api = await serve(pool, keys=[KEY], objects=store, vault=Vault([b"k" * 32]))
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        f'[auth.openapi.bearer]\nbearer = "{KEY}"\n[auth.openapi.key]\napi_key = "{KEY}"\n[parameters]\nwait = 0\n'
    )
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config)),
        *("run", f"{api.url}/api/openapi.json", "--checks", "all", "--exclude-checks", NOT_SAID),
        *("--exclude-path", "/api/v1/ws"),  # it speaks no WebSocket
        *("--max-examples", "15", "--seed", "1", "--generation-database", "none", "--no-color"),
        "--continue-on-failure",
        cwd=tmp_path,  # it keeps what it found there
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    store.close()
    text = said.decode()
    assert process.returncode == 0, text
    found = re.search(r"(\d+) generated", text)
    assert found is not None, text
    assert int(found[1]) > 200, text


async def test_who_waits_for_the_database_is_in_line_and_what_watches_us_is_not(shared: Served) -> None:
    room, answered = shared.state.room, []

    async def ask(number: int) -> None:
        await shared.get("/api/v1/calls?limit=1")
        answered.append(number)

    taken = 0
    while not room.locked():
        await room.acquire()
        taken += 1
    asking = []
    for number in range(5):
        asking.append(asyncio.create_task(ask(number)))
        while len(room._waiters or ()) <= number:  # noqa: ASYNC110
            await asyncio.sleep(0)  # until it stands in line
    for path in ("/healthz", "/readyz", "/api/openapi.json"):
        assert (await shared.get(path))[0] == 200
    assert answered == []
    room.release()  # one place: one after another
    await asyncio.gather(*asking)
    assert answered == list(range(5))
    assert taken > 1
