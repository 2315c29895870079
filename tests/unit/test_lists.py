"""The answers to list actions: only our own, whole or marked as not."""

from trunkline.asterisk.codec import Decoder
from trunkline.asterisk.lists import ListCollector

ROW = b"Event: CoreShowChannel\r\nActionID: %b\r\nChannel: PJSIP/1001-%d\r\nUniqueid: u%d\r\nLinkedid: u0\r\n\r\n"
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


def test_a_row_that_a_caller_broke_makes_the_snapshot_prove_no_absence():
    broken = ROW.replace(b"Channel:", b"CallerIDNum: 1\r\n\r\nEvent: Hangup\r\nX: y\r\nChannel:") % (b"ours", 1, 1)
    lists = collect(START % b"ours" + broken + ROW % (b"ours", 2, 2) + END % (b"ours", 2))
    snapshot = lists.snapshot(0.0)
    assert list(snapshot.channels) == ["u2"]
    assert not snapshot.whole


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
        b"Event: Status\r\nPrivilege: Call\r\nChannel: PJSIP/1001-1\r\nUniqueid: u1\r\nDNID: 442070001001\r\n"
        b"Seconds: 7\r\nActionID: b\r\n\r\n"
    )
    for frame in Decoder().feed(START % b"a" + ROW % (b"a", 1, 1) + END % (b"a", 1) + status):
        lists.feed(frame)
    assert not lists.done
    assert lists.snapshot(0.0).channels["u1"]["DNID"] == "442070001001"
