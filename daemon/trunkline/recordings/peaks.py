"""The waveform of a recording, as a player draws it: the lowest and the highest sample of each pixel.

No sample is passed over. Only its level from -128 to 127 matters, so the audio is looked at as bytes of 256 values, and
the work is left to `bytes.translate`, which takes a nanosecond for each: two hours of 8 kHz take well below a second.
"""

from functools import lru_cache
from typing import BinaryIO, Final, TypedDict

from trunkline.recordings.audio import Audio

# Bytes that are looked at in one go; a multiple of every codec's sample.
_PIECE: Final = 262_144
# Every so many-th byte of a pixel gives a first guess of its range, which all of them are then held against.
_GUESS: Final = 61


class NoPeaks(Exception):
    """The recording's waveform cannot be told; the text says why, to an admin."""


class Waveform(TypedDict):
    """The JSON of audiowaveform, version 2, which peaks.js and waveform-data.js take as it is.

    `data` is min, max, min, max, … of `length` pixels; wavesurfer takes it divided by 128, as one channel. Channels
    are folded into one. A pixel is `samples_per_pixel` samples of each channel, the last one perhaps fewer.
    Source: github.com/bbc/audiowaveform, doc/DataFormat.md.
    """

    version: int
    channels: int
    sample_rate: int
    samples_per_pixel: int
    bits: int
    length: int
    data: list[int]


def peaks(file: BinaryIO, audio: Audio, count: int = 800) -> Waveform:
    """The waveform in at most `count` pixels; fewer where the samples do not divide that way, and none if it is empty.

    Raises: NoPeaks for a codec other than 16 bit PCM and G.711, and if the file is shorter by now; ValueError for a
    count below 1; OSError as the file does.
    """
    if count < 1:
        raise ValueError(f"a waveform of {count} pixels")
    if audio.codec not in _LEVELS or audio.samples is None:
        raise NoPeaks(f"no waveform is made of {audio.codec}, only of {', '.join(_LEVELS)}")
    frame = audio.channels * _WIDTH[audio.codec]
    each = max(1, -(-audio.samples // count))
    data: list[int] = []
    file.seek(audio.data_offset)
    for first in range(0, audio.samples, each):
        data += _range(file, audio.codec, min(each, audio.samples - first) * frame)
    return Waveform(
        version=2,
        channels=1,
        sample_rate=audio.rate,
        samples_per_pixel=each,
        bits=8,
        length=len(data) // 2,
        data=data,
    )


def _range(file: BinaryIO, codec: str, size: int) -> tuple[int, int]:
    """The lowest and the highest level in the next `size` bytes of the file."""
    level, width = _LEVELS[codec], _WIDTH[codec]
    low, high = 128, -129
    while size:
        wanted = min(size, _PIECE)
        piece = file.read(wanted)
        if len(piece) < wanted:
            raise NoPeaks("the file ended while its waveform was made")
        size -= wanted
        # Of 16 bits in little endian the level is the second byte.
        codes = piece[width - 1 :: width]
        for some in (codes[::_GUESS], codes):
            # What lies within the range so far cannot widen it: away with it, and look at what is left.
            outside = {level[code] for code in set(some.translate(None, _within(codec, low, high)))}
            if outside:
                low, high = min(low, *outside), max(high, *outside)
    return low, high


@lru_cache(maxsize=4096)
def _within(codec: str, low: int, high: int) -> bytes:
    return bytes(code for code, level in enumerate(_LEVELS[codec]) if low <= level <= high)


def _mulaw(code: int) -> int:
    """The 16 bit sample of a µ-law byte. Source: ITU-T G.711, table 2a."""
    code ^= 0xFF
    size = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return -size if code & 0x80 else size


def _alaw(code: int) -> int:
    """The 16 bit sample of an A-law byte. Source: ITU-T G.711, table 1a."""
    code ^= 0x55
    segment = code >> 4 & 7
    size = ((code & 0x0F) << 4) + 8
    if segment:
        size = size + 0x100 << segment - 1
    return size if code & 0x80 else -size


_WIDTH: Final = {"pcm_s16le": 2, "pcm_mulaw": 1, "pcm_alaw": 1}
# The level of a sample, which is its upper 8 bits, by its byte in the file.
_LEVELS: Final[dict[str, list[int]]] = {
    "pcm_s16le": [code - 256 if code > 127 else code for code in range(256)],
    "pcm_mulaw": [_mulaw(code) >> 8 for code in range(256)],
    "pcm_alaw": [_alaw(code) >> 8 for code in range(256)],
}
