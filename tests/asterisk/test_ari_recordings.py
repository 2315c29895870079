"""What ARI has recorded of real calls, on its way into a real S3: tied to its call and leg, whatever its name is."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ari_user import AriUser
from sounds import share
from stage import Stage, talk, until
from stored import CUSTOMER_HZ, Stored, length


@pytest.fixture(scope="module")
def user(storing: object, shared_stage: Stage) -> Iterator[AriUser]:
    with closing(AriUser(shared_stage.pbx)) as user:
        yield user


def test_a_snooped_call_is_recorded_beside_mixmonitor(stored: Stored, user: AriUser) -> None:
    stage = stored.stage
    customer, desk = stage.connect()
    channel = stage.tap.event("BridgeEnter", stage.mark, CallerIDNum=stage.caller)["Uniqueid"]
    user.record(f"channels/{user.snoop(channel)}", "coaching/call one")
    talk(2)
    customer.hangup()
    desk.wait_end()
    recordings = {one["kind"]: one for one in stored.recordings("STORED", 2)}
    mine = recordings["ARI"]
    assert mine["path"] == str(stage.pbx.ari_recordings / "coaching" / "call one.wav")
    assert mine["channelId"] == recordings["CALL"]["channelId"] == channel
    sound = stored.sound(mine)
    assert 1.5 < length(sound) < 3
    assert mine["durationSeconds"] == round(length(sound))
    assert share(sound, CUSTOMER_HZ, 0.5, 1.5) > 0.2
    assert share(sound, 600, 0.5, 1.5) > 0.2  # agent 1002
    assert not Path(mine["path"]).exists()
    call = stored.get(f"/api/v1/calls/{mine['callId']}")
    assert {one["kind"] for one in call["recordings"]} == {"CALL", "ARI"}


def stored_of(stored: Stored, legs: str) -> list[dict[str, Any]] | None:
    """Both recordings of the call with such a leg, once they are stored."""
    calls = stored.rows.where("id IN (SELECT call_id FROM call_leg WHERE channel_id LIKE $1)", legs)
    found = [one for call in calls for one in stored.recordings_of(call) if one["state"] == "STORED"]
    return found if len(found) == 2 else None


def test_a_bridge_and_a_channel_in_stasis_are_recorded_by_name_alone(stored: Stored, user: AriUser) -> None:
    """Two phones that an application has rung are one call once they meet; what it records of them is that call's."""
    stage = stored.stage
    ends = []
    channels = []
    for number in ("1002", "1003"):
        phone = stage.agent(number)
        channels.append(user.ring(f"PJSIP/{number}"))
        ends.append(phone.wait_call())
        ends[-1].answer()
        user.event("StasisStart", lambda event: event["channel"]["id"] == channels[-1])
    user.record(f"channels/{channels[0]}", "greeting")
    talk(1)
    user.ask("POST", "recordings/live/greeting/stop")
    bridge = user.ask("POST", "bridges", type="mixing")["id"]
    user.record(f"bridges/{bridge}", "meeting")  # nobody is in it yet
    user.ask("POST", f"bridges/{bridge}/addChannel", channel=",".join(channels))
    talk(1.5)
    for end in ends:
        end.hangup()
    user.event("RecordingFinished", lambda event: event["recording"]["name"] == "meeting")
    user.ask("DELETE", f"bridges/{bridge}")

    found = partial(stored_of, stored, f"%{channels[0]}%")
    made = {one["name"]: one for one in until("both are stored", found, 20)}
    assert {name: one["channelId"] for name, one in made.items()} == {
        "greeting.wav": channels[0],
        "meeting.wav": channels[0],
    }
    assert len({one["callId"] for one in made.values()}) == 1
    greeting, meeting = stored.sound(made["greeting.wav"]), stored.sound(made["meeting.wav"])
    assert share(greeting, 600, 0.3, 0.8) > 0.2
    assert share(greeting, 700) < 0.01
    assert share(meeting, 600, length(meeting) - 1, length(meeting) - 0.3) > 0.1
    assert share(meeting, 700, length(meeting) - 1, length(meeting) - 0.3) > 0.1
