"""Recordings for tests: tones as every kind of file that Asterisk writes, and an ear that tells what is in a WAV.

The ear reads with the standard library's `wave`, which believes the header: so what it hears of a mended file is what a
player would.
"""

import array
import io
import itertools
import math
import statistics
import wave
from typing import NamedTuple

# A frame of silence, as Asterisk's own formats/format_gsm.c and format_wav_gsm.c have them.
GSM_SILENCE = bytes.fromhex("d820a2e15a50004924924924500049249249245000492492492450004924924924")
MSGSM_SILENCE = bytes.fromhex(
    "4817d684028024499224890280244992248902802449922489028024499224098274614d280048922449922800489224499228004892"
    "2449922800489224499200"
)
_FULL = 32_767


def tone(frequency: float, seconds: float, rate: int = 8_000, loudness: float = 0.5, channels: int = 1) -> bytes:
    """16 bit PCM, little endian; the same in every channel. Full loudness is 1."""
    top = loudness * _FULL
    step = 2 * math.pi * frequency / rate
    samples = array.array("h")
    for at in range(round(seconds * rate)):
        samples.extend([round(top * math.sin(step * at))] * channels)
    return samples.tobytes()


def mulaw(pcm: bytes) -> bytes:
    """16 bit PCM as G.711 µ-law."""
    return bytes(_mulaw(sample) for sample in array.array("h", pcm))


def alaw(pcm: bytes) -> bytes:
    """16 bit PCM as G.711 A-law."""
    return bytes(_alaw(sample) for sample in array.array("h", pcm))


def chunk(kind: bytes, content: bytes, stated: int | None = None, *, pad: bool = True) -> bytes:
    """A chunk of a RIFF; `stated` is the size its header claims, if not the true one."""
    size = len(content) if stated is None else stated
    return kind + size.to_bytes(4, "little") + content + b"\0" * (pad and len(content) % 2)


def fmt(tag: int, channels: int, rate: int, block: int, bits: int, extra: bytes = b"") -> bytes:
    """The content of a `fmt ` chunk."""
    numbers = ((tag, 2), (channels, 2), (rate, 4), (rate * block, 4), (block, 2), (bits, 2))
    return b"".join((number & 256**size - 1).to_bytes(size, "little") for number, size in numbers) + extra


PCM, MULAW, ALAW = (1, 16), (7, 8), (6, 8)
# The fmt chunk of a WAV49, as Asterisk's format_wav_gsm.c writes it.
WAV49_FMT = bytes.fromhex("31000100401f0000590600004100000002004001")


def wav(
    audio: bytes,
    rate: int = 8_000,
    channels: int = 1,
    kind: tuple[int, int] = PCM,
    *,
    stated: int | None = None,
    riff: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    extensible: bool = False,
) -> bytes:
    """A WAV; `stated` and `riff` are the sizes its header claims, if not the true ones: 0 while Asterisk records."""
    tag, bits = kind
    block = channels * bits // 8
    content = fmt(tag, channels, rate, block, bits)
    if extensible:
        guid = tag.to_bytes(2, "little") + bytes.fromhex("000000001000800000aa00389b71")
        extra = (22).to_bytes(2, "little") + bits.to_bytes(2, "little") + bytes(4) + guid
        content = fmt(0xFFFE, channels, rate, block, bits, extra)
    return _riff(chunk(b"fmt ", content) + before + chunk(b"data", audio, stated, pad=bool(after)) + after, riff)


def wav49(
    seconds: float,
    *,
    stated: int | None = None,
    riff: int | None = None,
    samples: int | None = None,
    pad_counted: bool = False,
) -> bytes:
    """Silence as Asterisk 22's .WAV: GSM in blocks of 65 bytes and 40 ms; older ones count a pad byte as audio."""
    blocks = round(seconds * 25)
    audio = MSGSM_SILENCE * blocks
    audio += b"\0" * (pad_counted and len(audio) % 2)
    fact = (blocks * 320 if samples is None else samples).to_bytes(4, "little")
    chunks = chunk(b"fmt ", WAV49_FMT) + chunk(b"fact", fact) + chunk(b"data", audio, stated, pad=False)
    return _riff(chunks, riff)


def raw(ending: str, frequency: float, seconds: float) -> bytes:
    """A file without header: the tone as ulaw, alaw, sln or sln16; silence of that length as gsm, and noise as g722."""
    match ending:
        case "ulaw":
            return mulaw(tone(frequency, seconds))
        case "alaw":
            return alaw(tone(frequency, seconds))
        case "sln":
            return tone(frequency, seconds)
        case "sln16":
            return tone(frequency, seconds, 16_000)
        case "gsm":
            return GSM_SILENCE * round(seconds * 50)
        case "g722":
            return bytes(at * 89 % 256 for at in range(round(seconds * 8_000)))
    raise ValueError(f"no {ending} is made here")


class Heard(NamedTuple):
    """What a WAV holds: its strongest `frequency` in Hz (0 if silent), its length, and loudness (1 is full scale)."""

    frequency: float
    seconds: float
    loudness: float
    rate: int
    channels: int


def heard(file: bytes, start: float = 0.0, end: float | None = None, channel: int = 0) -> Heard:
    """What is in a WAV of 16 bit PCM between these seconds, by zero crossings: for one tone at a time, gaps or not."""
    samples, rate, channels = _samples(file, start, end, channel)
    top = max(map(abs, samples), default=0)
    # Too flat a crossing is the noise of a silence, not the tone.
    rises = [
        at - after / (after - before)
        for at, (before, after) in enumerate(itertools.pairwise(samples), 1)
        if before < 0 <= after and after - before > top / 100
    ]
    periods = [later - earlier for earlier, later in itertools.pairwise(rises)]
    usual = statistics.median(periods) if periods else 0.0
    periods = [period for period in periods if usual / 2 < period < usual * 2]
    frequency = rate / statistics.fmean(periods) if periods else 0.0
    return Heard(frequency, len(samples) / rate, top / _FULL, rate, channels)


def share(file: bytes, frequency: float, start: float = 0.0, end: float | None = None, channel: int = 0) -> float:
    """How much of the sound between these seconds is that tone, 0 to 1 (Goertzel): for tones that are mixed."""
    samples, rate, _ = _samples(file, start, end, channel)
    energy = sum(sample * sample for sample in samples)
    if not energy:
        return 0.0
    turn = 2 * math.cos(2 * math.pi * frequency / rate)
    last = older = 0.0
    for sample in samples:
        last, older = sample + turn * last - older, last
    power = last * last + older * older - turn * last * older
    return min(1.0, 2 * power / (len(samples) * energy))


def _samples(file: bytes, start: float, end: float | None, channel: int) -> tuple[array.array, int, int]:
    with wave.open(io.BytesIO(file)) as opened:
        if opened.getsampwidth() != 2:
            raise ValueError(f"16 bit PCM is heard, not {opened.getsampwidth() * 8} bit")
        rate, channels = opened.getframerate(), opened.getnchannels()
        samples = array.array("h", opened.readframes(opened.getnframes()))[channel::channels]
    return samples[round(start * rate) : None if end is None else round(end * rate)], rate, channels


def _riff(chunks: bytes, stated: int | None) -> bytes:
    return b"RIFF" + (len(chunks) + 4 if stated is None else stated).to_bytes(4, "little") + b"WAVE" + chunks


def _mulaw(sample: int) -> int:
    size = min(abs(sample), 32_635) + 132
    segment = size.bit_length() - 8
    return ~((0x80 if sample < 0 else 0) | segment << 4 | size >> segment + 3 & 0x0F) & 0xFF


def _alaw(sample: int) -> int:
    # A-law has 13 bits, and no zero: what is negative begins at -1.
    size = sample >> 3 if sample >= 0 else ~sample >> 3
    segment = max(size.bit_length() - 5, 0)
    return ((0 if sample < 0 else 0x80) | segment << 4 | size >> max(segment, 1) & 0x0F) ^ 0x55
