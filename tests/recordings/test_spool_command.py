"""`trunkline spool`, the uploader beside a PBX, as a process."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from encoder import FFMPEG
from house import PBX, House

from trunkline.embedded.s3 import S3Server

pytestmark = pytest.mark.asyncio

SETTINGS = """
[account]
name = "main"

[database]
url = "{url}"

[[pbx]]
host = "127.0.0.1"
secret = "not needed here"
systemname = "{pbx}"
recordings = "{spool}"

[recordings]
endpoint = "{endpoint}"
bucket = "recordings"
access_key = "{key}"
secret_key = "{secret}"
prefix = "{prefix}"
"""


async def spool(settings: Path, *words: str) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline", "spool", "--config", str(settings), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )


@pytest.fixture
def settings(house: House, database_url: str, s3: S3Server, tmp_path: Path) -> Path:
    path = tmp_path / "trunkline.toml"
    path.write_text(
        SETTINGS.format(
            url=database_url,
            pbx=PBX,
            spool=house.spool,
            endpoint=s3.endpoint,
            key=s3.access_key,
            secret=s3.secret_key,
            prefix=house.prefix,
        )
    )
    return path


async def test_once_stores_what_is_there_and_ends(house: House, settings: Path) -> None:
    await house.call(str(house.write("told.wav")))
    silent = await house.call()
    house.write(f"missed-{await house.channel(silent)}.wav")
    house.write("stranger.wav")
    process = await spool(settings, "--once")
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said.decode()
    assert sorted(await house.states()) == ["stored", "stored", "unmatched"]
    assert len(house.objects()) == 2
    assert house.files() == ["stranger.wav"]


@pytest.fixture
def opus_settings(settings: Path) -> Path:
    settings.write_text(f'{settings.read_text()}format = "opus"\nffmpeg = "{FFMPEG}"\n')
    return settings


async def test_it_goes_on_until_it_is_told_to_stop(house: House, opus_settings: Path) -> None:
    process = await spool(opus_settings)
    await house.call(str(house.write("first.wav")))
    await house.until("the first is stored", lambda: len(house.objects()) == 1, 40)
    await house.call(str(house.write("second.wav")))
    await house.until("the second is stored", lambda: len(house.objects()) == 2)
    assert all(key.endswith(".opus") for key in house.objects())
    process.send_signal(signal.SIGTERM)
    said, _ = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0, said.decode()


@pytest.fixture
def nameless(settings: Path) -> Path:
    settings.write_text(settings.read_text().replace(f'systemname = "{PBX}"\n', ""))
    return settings


async def test_a_pbx_without_a_name_is_refused_with_what_to_do(nameless: Path) -> None:
    process = await spool(nameless)
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert said.startswith(f"{nameless} cannot be used, 1 problem:\n  pbx[1].systemname: is missing".encode())
