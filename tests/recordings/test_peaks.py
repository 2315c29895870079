"""The waveform: no peak missed, in every codec that is read, and no more memory for a longer call."""

import array
import io
import json
import tracemalloc
from collections.abc import Callable

import pytest
import sounds
from hypothesis import given
from hypothesis import strategies as st

from trunkline.recordings.audio import examine
from trunkline.recordings.peaks import NoPeaks, Waveform, peaks


def drawn(content: bytes, name: str = "call.wav", count: int = 800) -> Waveform:
    file = io.BytesIO(content)
    return peaks(file, examine(file, name, len(content)), count)


def extremes(samples: list[int], each: int) -> list[int]:
    """What `data` has to be, told the plain way."""
    pixels = [samples[at : at + each] for at in range(0, len(samples), each)]
    return [level >> 8 for pixel in pixels for level in (min(pixel), max(pixel))]


def test_a_waveform_is_what_a_player_takes() -> None:
    waveform = drawn(sounds.wav(sounds.tone(1_000, 10, loudness=0.5)), count=800)
    assert {**waveform, "data": None} == {
        "version": 2,
        "channels": 1,
        "sample_rate": 8_000,
        "samples_per_pixel": 100,
        "bits": 8,
        "length": 800,
        "data": None,
    }
    assert len(waveform["data"]) == 1_600
    assert set(waveform["data"][0::2]) == {-64}
    assert set(waveform["data"][1::2]) == {64}
    assert json.loads(json.dumps(waveform)) == waveform


@given(
    st.lists(st.integers(-32_768, 32_767) | st.integers(-300, 300), max_size=600),
    st.integers(1, 900),
    st.integers(1, 3),
)
def test_no_peak_is_missed(samples: list[int], count: int, channels: int) -> None:
    samples = samples[: len(samples) // channels * channels]
    waveform = drawn(sounds.wav(array.array("h", samples).tobytes(), channels=channels), count=count)
    assert waveform["data"] == extremes(samples, waveform["samples_per_pixel"] * channels)
    assert waveform["length"] <= count
    assert waveform["length"] * 2 == len(waveform["data"])


@given(st.integers(0, 399_999), st.integers(0, 399_999), st.integers(1, 5))
def test_one_click_in_a_long_silence_is_seen(up: int, down: int, count: int) -> None:
    samples = array.array("h", bytes(800_000))
    samples[up], samples[down] = 32_767, -32_768
    waveform = drawn(samples.tobytes(), "call.sln", count)
    each = waveform["samples_per_pixel"]
    expected = [0, 0] * waveform["length"]
    if up != down:
        expected[2 * (up // each) + 1] = 127
    expected[2 * (down // each)] = -128
    assert waveform["data"] == expected


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (sounds.raw("ulaw", 440, 2), "call.ulaw"),
        (sounds.raw("alaw", 440, 2), "call.alaw"),
        (sounds.raw("sln", 440, 2), "call.sln"),
        (sounds.raw("sln16", 440, 2), "call.sln16"),
        (sounds.wav(sounds.raw("ulaw", 440, 2), kind=sounds.MULAW), "call.wav"),
        (sounds.wav(sounds.raw("alaw", 440, 2), kind=sounds.ALAW, extensible=True), "call.wav"),
        (sounds.wav(sounds.tone(440, 2, channels=2), channels=2, stated=0, riff=0), "call.wav"),
    ],
)
def test_a_tone_is_the_same_in_every_codec(content: bytes, name: str) -> None:
    waveform = drawn(content, name, count=20)
    assert waveform["length"] == 20
    assert all(-66 <= low <= -62 for low in waveform["data"][0::2])
    assert all(61 <= high <= 66 for high in waveform["data"][1::2])


# Source: ITU-T G.711, tables 1 and 2, in 16 bits.
@pytest.mark.parametrize(
    ("ending", "code", "sample"),
    [
        ("ulaw", 0x00, -32_124),
        ("ulaw", 0x80, 32_124),
        ("ulaw", 0x8F, 16_764),
        ("ulaw", 0x7F, 0),
        ("ulaw", 0xFF, 0),
        ("ulaw", 0x2F, -4_092),
        ("alaw", 0x2A, -32_256),
        ("alaw", 0xAA, 32_256),
        ("alaw", 0xA5, 16_896),
        ("alaw", 0xD5, 8),
        ("alaw", 0x55, -8),
    ],
)
def test_g711_is_decoded(ending: str, code: int, sample: int) -> None:
    assert drawn(bytes([code]) * 9, f"call.{ending}", 1)["data"] == [sample >> 8] * 2


@pytest.mark.parametrize(("ending", "encoded"), [("ulaw", sounds.mulaw), ("alaw", sounds.alaw)])
def test_every_level_of_g711_is_near_what_was_spoken(ending: str, encoded: Callable[[bytes], bytes]) -> None:
    for sample in range(-32_000, 32_000, 500):
        content = encoded(array.array("h", [sample]).tobytes())
        low, high = drawn(content, f"call.{ending}", 1)["data"]
        assert low == high
        assert abs(low - sample / 256) <= 3


def test_tags_after_the_audio_are_not_drawn() -> None:
    tags = sounds.chunk(b"LIST", b"\x7f" * 1_000)
    assert set(drawn(sounds.wav(bytes(1_600), after=tags))["data"]) == {0}


@pytest.mark.parametrize("content", [sounds.wav(b""), b""])
def test_an_empty_recording_has_no_pixels(content: bytes) -> None:
    waveform = drawn(content)
    assert (waveform["length"], waveform["data"], waveform["samples_per_pixel"]) == (0, [], 1)


@pytest.mark.parametrize(
    ("content", "name", "codec"),
    [
        (sounds.raw("gsm", 0, 1), "call.gsm", "gsm"),
        (sounds.raw("g722", 0, 1), "call.g722", "g722"),
        (sounds.wav49(1), "call.WAV", "gsm_ms"),
        (b"OggS", "call.opus", "opus"),
    ],
)
def test_other_codecs_are_not_drawn(content: bytes, name: str, codec: str) -> None:
    with pytest.raises(NoPeaks, match=f"^no waveform is made of {codec}, only of pcm_s16le, pcm_mulaw, pcm_alaw$"):
        drawn(content, name)


@pytest.mark.parametrize("left", [0, 500, 1_001])
def test_a_file_that_shrank_is_not_drawn(left: int) -> None:
    audio = examine(io.BytesIO(bytes(1_600)), "call.sln", 1_600)
    with pytest.raises(NoPeaks, match="the file ended"):
        peaks(io.BytesIO(bytes(left)), audio, 1)


def test_no_pixels_are_no_waveform() -> None:
    with pytest.raises(ValueError, match="a waveform of 0 pixels"):
        drawn(bytes(100), "call.sln", 0)


def test_a_longer_call_takes_no_more_memory() -> None:
    file = io.BytesIO(bytes(20_000_000))
    audio = examine(file, "call.sln", 20_000_000)
    tracemalloc.start()
    try:
        peaks(file, audio, 3)
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()
