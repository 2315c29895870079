"""The answers to list actions: only our own, whole or marked as not."""

import pytest

from trunkline.asterisk.codec import Decoder
from trunkline.asterisk.lists import ListCollector

CHANNEL = (
    b"Channel: PJSIP/1001-%d\r\nChannelState: 6\r\nChannelStateDesc: Up\r\nCallerIDNum: 1001\r\nCallerIDName: A\r\n"
    b"ConnectedLineNum: \r\nConnectedLineName: \r\nLanguage: en\r\nAccountCode: \r\nContext: agents\r\nExten: s\r\n"
    b"Priority: 1\r\nUniqueid: u%d\r\nLinkedid: u0\r\n"
)
ROW = b"Event: CoreShowChannel\r\nActionID: %b\r\n" + CHANNEL + b"Application: Dial\r\nDuration: 00:00:07\r\n\r\n"
START = b"Response: Success\r\nActionID: %b\r\nEventList: start\r\nMessage: Channels will follow\r\n\r\n"
END = b"Event: CoreShowChannelsComplete\r\nActionID: %b\r\nEventList: Complete\r\nListItems: %d\r\n\r\n"


def collect(data: bytes) -> ListCollector:
    lists = ListCollector({"ours": "CoreShowChannels"})
    for frame in Decoder().feed(data):
        lists.feed(frame)
    return lists


def test_our_rows_make_a_snapshot():
    lists = collect(START % b"ours" + ROW % (b"ours", 1, 1) + ROW % (b"ours", 2, 2) + END % (b"ours", 2))
    assert lists.done
    snapshot = lists.snapshot(9.0)
    assert list(snapshot.channels) == ["u1", "u2"]
    assert snapshot.whole
    assert snapshot.at == 9.0


def test_a_row_with_another_action_id_is_not_ours():
    lists = collect(START % b"ours" + ROW % (b"guessed", 1, 1) + END % (b"ours", 0))
    assert lists.done
    assert lists.snapshot(0.0).channels == {}


@pytest.mark.parametrize(
    "injected",
    [
        b"1\r\n\r\nEvent: Hangup\r\nX: y",
        b"1\r\nSeconds: 99999999999999",
        b"1\r\nVariable: a\r\nVariable: b\r\nUniqueid: zz\r\nLinkedid: zz",
        b"1\r\nUniqueid: zz\r\nLinkedid: zz\r\nCallerIDNum: 1",
    ],
)
def test_a_row_that_a_caller_broke_says_nothing_of_his_channel_and_all_of_the_others(injected: bytes):
    broken = ROW.replace(b"CallerIDNum: 1001", b"CallerIDNum: " + injected) % (b"ours", 1, 1)
    lists = collect(START % b"ours" + broken + ROW % (b"ours", 2, 2) + END % (b"ours", 2))
    snapshot = lists.snapshot(0.0)
    assert list(snapshot.channels) == ["u2"]
    assert snapshot.unreadable == {"PJSIP/1001-1"}
    assert snapshot.whole  # of the others it proves all


def test_a_count_that_is_not_met_is_not_whole():
    assert not collect(START % b"ours" + ROW % (b"ours", 1, 1) + END % (b"ours", 2)).snapshot(0.0).whole


def test_a_refused_list_is_done_and_says_why():
    lists = collect(b"Response: Error\r\nActionID: ours\r\nMessage: Permission denied\r\n\r\n")
    assert lists.done
    assert lists.failed == {"CoreShowChannels": "Permission denied"}
    assert not lists.snapshot(0.0).whole


def test_status_adds_what_the_channel_list_lacks():
    lists = ListCollector({"a": "CoreShowChannels", "b": "Status"})
    status = (
        b"Event: Status\r\nPrivilege: Call\r\n"
        + CHANNEL % (1, 1)
        + b"DNID: 442070001001\r\nSeconds: 7\r\nActionID: b\r\n\r\n"
    )
    for frame in Decoder().feed(START % b"a" + ROW % (b"a", 1, 1) + END % (b"a", 1) + status):
        lists.feed(frame)
    assert not lists.done
    assert lists.snapshot(0.0).channels["u1"]["DNID"] == "442070001001"
