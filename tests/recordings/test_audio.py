"""What a recording holds: every format of Asterisk, headers that lie, and bytes that are no recording at all."""

import io
import os
import wave

import pytest
import sounds
from hypothesis import example, given
from hypothesis import strategies as st
from sounds import chunk

from trunkline.recordings.audio import Audio, NotAudio, examine, mended_header

ONE_SECOND = sounds.tone(440, 1)
TAGS = chunk(b"LIST", b"INFOISFT\x05\0\0\0sound\0")


def looked_at(content: bytes, name: str = "call.wav") -> Audio:
    return examine(io.BytesIO(content), name, len(content))


def mended(content: bytes, name: str = "call.wav") -> bytes:
    file = io.BytesIO(content)
    audio = examine(file, name, len(content))
    return mended_header(file, audio) + content[audio.data_offset :]


class Vast(io.RawIOBase):
    """A header, then zeros up to a size that no memory here has; it counts its reads, and allows no large one."""

    def __init__(self, head: bytes, size: int) -> None:
        self.head, self.size, self.at, self.reads = head, size, 0, 0

    def seek(self, at: int, whence: int = os.SEEK_SET) -> int:
        self.at = at
        return at

    def read(self, count: int = -1) -> bytes:
        assert 0 <= count <= 65_536
        self.reads += 1
        here = self.head[self.at : self.at + count]
        here += bytes(min(count, self.size - self.at) - len(here))
        self.at += len(here)
        return here


@pytest.mark.parametrize(
    ("content", "name", "codec", "rate", "channels"),
    [
        (sounds.wav(ONE_SECOND), "call.wav", "pcm_s16le", 8_000, 1),
        (sounds.wav(sounds.tone(440, 1, 16_000), 16_000), "call.wav16", "pcm_s16le", 16_000, 1),
        (sounds.wav(sounds.tone(440, 1, channels=2), channels=2), "call.wav", "pcm_s16le", 8_000, 2),
        (sounds.wav(sounds.mulaw(ONE_SECOND), kind=sounds.MULAW), "call.wav", "pcm_mulaw", 8_000, 1),
        (sounds.wav(sounds.alaw(ONE_SECOND), kind=sounds.ALAW), "call.wav", "pcm_alaw", 8_000, 1),
        (sounds.wav(ONE_SECOND, extensible=True), "call.wav", "pcm_s16le", 8_000, 1),
        (sounds.wav(sounds.mulaw(ONE_SECOND), kind=sounds.MULAW, extensible=True), "c.wav", "pcm_mulaw", 8_000, 1),
        (sounds.wav(bytes(48_000), 8_000, 2, (1, 24)), "call.wav", "pcm_s24le", 8_000, 2),
        (sounds.wav(bytes(8_000), kind=(1, 8)), "call.wav", "pcm_u8", 8_000, 1),
        (sounds.wav(bytes(32_000), kind=(3, 32)), "call.wav", "pcm_f32le", 8_000, 1),
        (sounds.wav49(1), "call.WAV", "gsm_ms", 8_000, 1),
        (sounds.wav49(1), "call.wav49", "gsm_ms", 8_000, 1),
    ],
)
def test_a_wav_says_what_it_holds(content: bytes, name: str, codec: str, rate: int, channels: int) -> None:
    audio = looked_at(content, name)
    assert (audio.container, audio.mime_type) == ("wav", "audio/wav")
    assert (audio.codec, audio.rate, audio.channels, audio.seconds) == (codec, rate, channels, 1.0)
    assert audio.header_fault == ""
    assert audio.stated_bytes == audio.data_bytes == len(content) - audio.data_offset
    assert not audio.empty


@pytest.mark.parametrize(
    ("ending", "codec", "rate", "bytes_a_second"),
    [
        *((ending, "pcm_mulaw", 8_000, 8_000) for ending in ("ulaw", "ul", "mu", "ulw", "pcm", "ULAW")),
        *((ending, "pcm_alaw", 8_000, 8_000) for ending in ("alaw", "al", "alw")),
        *((ending, "pcm_s16le", 8_000, 16_000) for ending in ("sln", "slin", "raw")),
        *((f"sln{kHz}", "pcm_s16le", kHz * 1000, kHz * 2000) for kHz in (12, 16, 24, 32, 48, 96, 192)),
        ("sln44", "pcm_s16le", 44_100, 88_200),
        ("gsm", "gsm", 8_000, 1_650),
        ("g722", "g722", 16_000, 8_000),
        ("g729", "g729", 8_000, 1_000),
        ("g726-32", "g726", 8_000, 4_000),
        ("siren7", "siren7", 16_000, 4_000),
        ("siren14", "siren14", 32_000, 6_000),
        ("g719", "g719", 48_000, 8_000),
        ("vox", "adpcm_vox", 8_000, 4_000),
    ],
)
def test_a_raw_file_is_what_its_ending_says(ending: str, codec: str, rate: int, bytes_a_second: int) -> None:
    audio = looked_at(bytes(3 * bytes_a_second), f"call.{ending}")
    assert (audio.container, audio.codec, audio.rate, audio.channels) == ("raw", codec, rate, 1)
    assert audio.seconds == 3.0
    assert (audio.data_offset, audio.data_bytes, audio.stated_bytes) == (0, 3 * bytes_a_second, None)
    assert audio.mime_type.startswith("audio/")


def test_only_whole_frames_are_heard() -> None:
    assert looked_at(bytes(33 * 50 + 32), "call.gsm").seconds == 1.0
    assert looked_at(bytes(50 * 2 + 49), "call.ilbc").seconds == 0.06
    assert looked_at(bytes(5), "call.sln").samples == 2
    assert looked_at(bytes(1), "call.sln").empty
    assert looked_at(sounds.wav(bytes(7), channels=2)).samples == 1


@pytest.mark.parametrize("name", ["call.ogg", "call.opus", "call.spx", "call.spx16", "call.spx32"])
def test_an_ogg_tells_no_length(name: str) -> None:
    audio = looked_at(b"OggS" + bytes(60), name)
    assert (audio.container, audio.mime_type) == ("ogg", "audio/ogg")
    assert (audio.seconds, audio.samples, audio.empty) == (None, None, False)
    assert mended(b"OggS" + bytes(60), name) == b"OggS" + bytes(60)
    with pytest.raises(NotAudio, match="begins with OggS"):
        looked_at(b"RIFF" + bytes(60), name)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("call.wav", "pcm_s16le", 8_000),
        ("call.Wav", "pcm_s16le", 8_000),
        ("call.wav16", "pcm_s16le", 16_000),
        ("call.WAV", "gsm_ms", 8_000),
        ("call.wav49", "gsm_ms", 8_000),
        ("call.ulaw", "pcm_mulaw", 8_000),
        ("call.opus", "opus", 48_000),
    ],
)
def test_a_file_that_was_only_begun_is_empty(name: str, codec: str, rate: int) -> None:
    audio = looked_at(b"", name)
    assert (audio.codec, audio.rate, audio.data_bytes, audio.header_fault) == (codec, rate, 0, "")
    assert audio.empty
    assert mended(b"", name) == b""


def test_a_call_that_nobody_answered_leaves_44_bytes() -> None:
    audio = looked_at(sounds.wav(b""))
    assert (audio.size, audio.data_offset, audio.seconds, audio.header_fault) == (44, 44, 0.0, "")
    assert audio.empty
    assert looked_at(sounds.wav49(0), "call.WAV").empty


def test_the_header_of_a_killed_asterisk_is_mended() -> None:
    killed = sounds.wav(sounds.tone(440, 4), stated=0, riff=0)
    audio = looked_at(killed)
    assert audio.header_fault == "the header says 0 bytes of audio, the file has 64000"
    assert (audio.stated_bytes, audio.data_bytes, audio.seconds, audio.empty) == (0, 64_000, 4.0, False)
    assert mended(killed) == sounds.wav(sounds.tone(440, 4))
    heard = sounds.heard(mended(killed))
    assert (round(heard.frequency), heard.seconds) == (440, 4.0)
    with pytest.raises(wave.Error):
        sounds.heard(killed)


def test_a_file_that_asterisk_has_just_begun_has_only_a_header() -> None:
    for content, name in ((sounds.wav(b"", riff=0), "call.wav"), (sounds.wav49(0, riff=0), "call.WAV")):
        audio = looked_at(content, name)
        assert audio.header_fault == f"the header says 8 bytes in all, the file has {len(content)}"
        assert audio.empty


def test_the_header_of_an_earlier_moment_is_mended() -> None:
    early = sounds.wav(sounds.tone(440, 4), stated=32_000, riff=32_036)
    assert looked_at(early).header_fault == "the header says 32000 bytes of audio, the file has 64000"
    assert looked_at(early).seconds == 4.0
    assert mended(early) == sounds.wav(sounds.tone(440, 4))


def test_a_copy_that_broke_off_is_as_long_as_it_is() -> None:
    short = sounds.wav(sounds.tone(440, 4))[: 44 + 16_000]
    audio = looked_at(short)
    assert audio.header_fault == "the header says 64000 bytes of audio, the file has only 16000"
    assert (audio.stated_bytes, audio.data_bytes, audio.seconds) == (64_000, 16_000, 1.0)
    assert mended(short) == sounds.wav(sounds.tone(440, 1))


def test_a_wrong_size_of_the_whole_is_a_fault_too() -> None:
    wrong = sounds.wav(ONE_SECOND, riff=0)
    assert looked_at(wrong).header_fault == "the header says 8 bytes in all, the file has 16044"
    assert mended(wrong) == sounds.wav(ONE_SECOND)


def test_the_count_of_samples_is_mended_with_the_sizes() -> None:
    killed = sounds.wav49(2, stated=0, riff=0, samples=0)
    assert looked_at(killed, "call.WAV").seconds == 2.0
    assert mended(killed, "call.WAV") == sounds.wav49(2)


@pytest.mark.parametrize("blocks", [1, 2, 25])
def test_a_wav49_may_have_a_pad_byte_or_only_count_it(blocks: int) -> None:
    padded = sounds.wav49(blocks / 25, pad_counted=True)
    for content in (sounds.wav49(blocks / 25), padded, padded[: 60 + 65 * blocks]):
        audio = looked_at(content, "call.WAV")
        assert (audio.samples, audio.header_fault) == (320 * blocks, "")


@pytest.mark.parametrize("pad", [True, False])
def test_chunks_around_the_audio_are_no_audio(pad: bool) -> None:
    before = chunk(b"JUNK", bytes(28)) + chunk(b"note", b"odd", pad=pad) + chunk(b"fact", b"\x40\x1f\0\0")
    audio_bytes = sounds.mulaw(ONE_SECOND)[:7_999]
    content = sounds.wav(audio_bytes, kind=sounds.MULAW, before=before, after=TAGS + chunk(b"bext", b"x", pad=pad))
    audio = looked_at(content)
    assert (audio.samples, audio.data_bytes, audio.header_fault) == (7_999, 7_999, "")
    assert content[audio.data_offset :].startswith(audio_bytes)
    assert mended(content) == content


def test_mending_leaves_the_chunks_after_the_audio_alone() -> None:
    good = sounds.wav(ONE_SECOND, after=TAGS)
    wrong = sounds.wav(ONE_SECOND, after=TAGS, riff=0)
    assert mended(wrong) == good
    assert looked_at(sounds.wav(b"", after=TAGS)).empty


def test_chunks_that_do_not_end_with_the_file_are_audio() -> None:
    for after in (TAGS[:-1], TAGS + b"x", chunk(b"LIST", b"", 0xFFFF_FFFF), chunk(b"\0\1\2\3", b"")):
        content = sounds.wav(ONE_SECOND, after=after, stated=16_000)
        assert looked_at(content).data_bytes == 16_000 + len(after)


def test_endless_empty_chunks_are_not_followed() -> None:
    content = sounds.wav(ONE_SECOND, after=chunk(b"none", b"") * 1_000, stated=16_000)
    file = Vast(content, len(content))
    assert examine(file, "call.wav", len(content)).data_bytes == 24_000
    assert file.reads < 50
    with pytest.raises(NotAudio, match="names no audio"):
        looked_at(sounds.wav(ONE_SECOND, before=chunk(b"none", b"") * 10_000))


def test_two_hours_cost_a_few_reads() -> None:
    size = 7_200 * 16_000
    for stated in (size, 0, 4_096):
        file = Vast(sounds.wav(b"", stated=stated, riff=stated + 36), 44 + size)
        audio = examine(file, "call.wav", file.size)
        mended_header(file, audio)
        assert audio.seconds == 7_200
        assert file.reads <= 3


@pytest.mark.parametrize("claimed", [0, 5_000_000_000 % 2**32, 0xFFFF_FFFF])
def test_beyond_four_gibibytes_sizes_stay_at_the_largest(claimed: int) -> None:
    file = Vast(sounds.wav(b"", stated=claimed, riff=claimed), 5_000_000_044)
    audio = examine(file, "call.wav", file.size)
    assert audio.seconds == 312_500.0
    header = mended_header(file, audio)
    assert header == sounds.wav(b"", stated=0xFFFF_FFFF, riff=0xFFFF_FFFF)
    assert (audio.header_fault == "") == (claimed == 0xFFFF_FFFF)


def test_a_file_that_grew_is_read_no_further_than_its_size() -> None:
    content = sounds.wav(sounds.tone(440, 2), stated=0, riff=0)
    audio = examine(io.BytesIO(content), "call.wav", 44 + 16_000)
    assert (audio.seconds, audio.data_bytes) == (1.0, 16_000)


def test_a_file_that_shrank_is_refused() -> None:
    content = sounds.wav(b"", stated=0)
    with pytest.raises(NotAudio, match="the file ended at byte 44"):
        examine(io.BytesIO(content), "call.wav", 64_044)
    audio = looked_at(sounds.wav(ONE_SECOND, stated=0))
    with pytest.raises(NotAudio, match="the file ended at byte 20"):
        mended_header(io.BytesIO(content[:20]), audio)


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "call", "its name has no ending"),
        (b"x", "call.mp3", "no kind of recording is known by the ending 'mp3'"),
        (b"x", "call.g723", "no kind of recording is known by the ending 'g723'"),
        (b"x", "call.wav.gz", "no kind of recording is known by the ending 'gz'"),
        (b"x", "a.wav/call", "its name has no ending"),
        (b"x", "call.\n\udcff" + "x" * 90, r"ending '\\n\\udcffx{18}'"),
        (bytes(64), "call.wav", "begins with RIFF and WAVE, this one with the bytes 00 00 00"),
        (b"RF64" + sounds.wav(ONE_SECOND)[4:], "call.wav", "this one with the bytes 52 46 36 34"),
        (b"RIFF", "call.wav", "begins with RIFF and WAVE"),
        (sounds.wav(ONE_SECOND)[:43], "call.wav", "names no audio within the first 43 bytes"),
        (sounds.wav(ONE_SECOND, before=chunk(b"LIST", b"", 0xFFFF_FFFF)), "call.wav", "names no audio"),
        (sounds.wav(ONE_SECOND, before=chunk(b"JUNK", bytes(70_000))), "call.wav", "within the first 65536 bytes"),
        (b"RIFF\0\0\0\0WAVE" + chunk(b"data", ONE_SECOND), "call.wav", "does not say the format before the audio"),
        (b"RIFF\0\0\0\0WAVE" + chunk(b"fmt ", bytes(14)), "call.wav", "in 14 bytes, not in 16"),
        (sounds.wav(ONE_SECOND, channels=0), "call.wav", "0 channels at 8000 Hz"),
        (sounds.wav(ONE_SECOND, channels=65_535), "call.wav", "65535 channels"),
        (sounds.wav(ONE_SECOND, rate=0), "call.wav", "1 channels at 0 Hz"),
        (sounds.wav(ONE_SECOND, kind=(0x55, 0)), "call.wav", "0x0055 with 0 bits, which is not known"),
        (sounds.wav(ONE_SECOND, kind=(1, 0)), "call.wav", "0x0001 with 0 bits"),
        (sounds.wav(ONE_SECOND, kind=(0xFFFE, 16)), "call.wav", "0xfffe with 16 bits"),
    ],
)
def test_what_is_no_recording_says_why(content: bytes, name: str, reason: str) -> None:
    with pytest.raises(NotAudio, match=reason):
        looked_at(content, name)


WHOLE = [
    (sounds.wav(ONE_SECOND[:800]), "call.wav"),
    (sounds.wav(ONE_SECOND[:800], before=TAGS, after=TAGS), "call.wav"),
    (sounds.wav(ONE_SECOND[:801], kind=sounds.MULAW, after=TAGS, extensible=True), "call.wav"),
    (sounds.wav(ONE_SECOND[:800], stated=0, riff=0), "call.wav"),
    (sounds.wav49(0.2), "call.WAV"),
]


def sound_or_refused(content: bytes, name: str) -> None:
    """Either it is refused, or what it says holds, and mending makes it a file without fault."""
    try:
        audio = looked_at(content, name)
    except NotAudio:
        return
    assert 0 <= audio.data_offset <= audio.data_offset + audio.data_bytes <= len(content)
    assert audio.rate > 0
    assert audio.channels > 0
    after = mended(content, name)
    assert len(after) == len(content)
    again = looked_at(after, name)
    assert again.header_fault == ""
    assert (again.samples, again.data_bytes, again.data_offset) == (audio.samples, audio.data_bytes, audio.data_offset)
    if not audio.header_fault:
        assert after == content


@given(
    st.binary(max_size=300),
    st.sampled_from(["wav", "WAV", "gsm", "sln", "ulaw", "ogg", "g729", "mp3"]),
    st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0", sounds.wav(b"")]),
)
@example(b"data" + b"\xff" * 4, "wav", sounds.wav(b"")[:36])
def test_any_bytes_are_understood_or_refused(content: bytes, ending: str, before: bytes) -> None:
    sound_or_refused(before + content, f"call.{ending}")


@given(
    st.sampled_from(WHOLE),
    st.lists(
        st.tuples(st.integers(0, 120), st.sampled_from([b"\0", b"\xff", b"\x01", b"\xff" * 4, b"\0" * 4, b"data"]))
    ),
    st.integers(0, 1_200),
)
def test_a_damaged_header_is_understood_or_refused(
    whole: tuple[bytes, str], damages: list[tuple[int, bytes]], length: int
) -> None:
    content, name = bytearray(whole[0]), whole[1]
    for at, damage in damages:
        content[at : at + len(damage)] = damage
    sound_or_refused(bytes(content[:length]), name)


@given(
    st.integers(0, 2**32 - 1) | st.integers(0, 900), st.integers(0, 2**32 - 1), st.binary(max_size=400), st.booleans()
)
def test_whatever_the_sizes_say_the_audio_is_the_same(stated: int, riff: int, pcm: bytes, gsm: bool) -> None:
    pcm = b"\xff" * len(pcm)  # no byte that begins the name of a chunk
    content = sounds.wav(pcm, kind=(0x31, 0) if gsm else sounds.PCM, stated=stated, riff=riff)
    audio = looked_at(content)
    assert (audio.data_bytes, audio.stated_bytes) == (len(pcm), stated)
    sound_or_refused(content, "call.wav")
