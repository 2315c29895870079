"""What a recording of Asterisk holds, told from its bytes: codec, rate, length, and whether its header is true.

A header is checked against the file, never believed: a .wav says 0 bytes of audio until Asterisk closes it, so that of
a PBX that was killed says so for ever, and a copy that broke off is shorter than it claims. Whatever the bytes, a file
costs one read of at most 64 KiB and a few of 9 bytes, and the answer is an `Audio` or `NotAudio`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Final, Literal, NamedTuple

# Within so many bytes the audio of a WAV has to begin. Asterisk's begins at 44 or 60, that of editors after some KiB
# of remarks. It bounds the chunks that are walked over, and what a mended header weighs.
_HEAD: Final = 65_536
# As many chunks may follow the audio; more are no remarks of an editor.
_CHUNKS_AFTER: Final = 32
_CHANNELS: Final = 32
# The largest size a RIFF header can state.
_LARGEST: Final = 0xFFFF_FFFF
_EXTENSIBLE: Final = 0xFFFE
# An extensible format's tag is the beginning of a GUID, whose rest is always this (KSDATAFORMAT_SUBTYPE_*).
_GUID: Final = bytes.fromhex("000000001000800000aa00389b71")


class NotAudio(Exception):
    """The file is no recording we can tell the length of; the text says why, to an admin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """What a recording holds.

    `rate` is in Hz. `size` is the file's in bytes, `data_bytes` what of it is audio, from `data_offset` on. `samples`
    are those really there, for each channel, whole blocks only; None for Ogg, whose length only its pages know.
    `stated_bytes` is the audio a WAV's header claims, None without one. `header_fault` says how it disagrees with the
    file, "" where it does not.
    """

    container: Literal["wav", "raw", "ogg"]
    codec: str
    mime_type: str
    rate: int
    channels: int
    size: int
    data_offset: int
    data_bytes: int
    samples: int | None
    stated_bytes: int | None = None
    header_fault: str = ""

    @property
    def seconds(self) -> float | None:
        """The length of the audio that is there; None for Ogg."""
        return None if self.samples is None else self.samples / self.rate

    @property
    def empty(self) -> bool:
        """Whether there is no audio at all: nobody answered, or the file was only begun."""
        return not self.data_bytes or self.samples == 0


class _Coding(NamedTuple):
    codec: str
    mime_type: str
    rate: int
    block_bytes: int  # 0: the length cannot be told from the bytes
    block_samples: int
    channels: int = 1


# Source: exts, and bytes of a block, in Asterisk's formats/format_*.c. sln has no registered type: audio/L16 is
# big-endian. Missing are g723, whose frames differ in length, and g726-16, -24, -40, into which Asterisk 22 writes
# frames of g726-32 or nothing.
_RAW: Final[dict[str, _Coding]] = {
    **dict.fromkeys(("ulaw", "ul", "mu", "ulw", "pcm"), _Coding("pcm_mulaw", "audio/basic", 8_000, 1, 1)),
    **dict.fromkeys(("alaw", "al", "alw"), _Coding("pcm_alaw", "audio/x-alaw", 8_000, 1, 1)),
    **dict.fromkeys(("sln", "slin", "raw"), _Coding("pcm_s16le", "audio/x-sln", 8_000, 2, 1)),
    **{f"sln{kHz}": _Coding("pcm_s16le", "audio/x-sln", kHz * 1000, 2, 1) for kHz in (12, 16, 24, 32, 48, 96, 192)},
    "sln44": _Coding("pcm_s16le", "audio/x-sln", 44_100, 2, 1),
    "gsm": _Coding("gsm", "audio/gsm", 8_000, 33, 160),
    "g722": _Coding("g722", "audio/G722", 16_000, 1, 2),
    "g729": _Coding("g729", "audio/G729", 8_000, 10, 80),
    "g726-32": _Coding("g726", "audio/G726-32", 8_000, 1, 2),
    "ilbc": _Coding("ilbc", "audio/iLBC", 8_000, 50, 240),
    "siren7": _Coding("siren7", "audio/x-siren7", 16_000, 80, 320),
    "siren14": _Coding("siren14", "audio/x-siren14", 32_000, 120, 640),
    "g719": _Coding("g719", "audio/G719", 48_000, 160, 960),
    "vox": _Coding("adpcm_vox", "audio/x-vox", 8_000, 1, 2),
}
# With the codec and rate that Asterisk writes under these endings.
_OGG: Final[dict[str, _Coding]] = {
    "ogg": _Coding("vorbis", "audio/ogg", 8_000, 0, 0),
    "opus": _Coding("opus", "audio/ogg", 48_000, 0, 0),
    "spx": _Coding("speex", "audio/ogg", 8_000, 0, 0),
    "spx16": _Coding("speex", "audio/ogg", 16_000, 0, 0),
    "spx32": _Coding("speex", "audio/ogg", 32_000, 0, 0),
}
# What a WAV of 0 bytes was to become: Asterisk opened it and wrote no header, on a full disk say. `.WAV` is not `.wav`.
_BEGUN: Final[dict[str, _Coding]] = {
    **dict.fromkeys(("WAV", "wav49"), _Coding("gsm_ms", "audio/wav", 8_000, 65, 320)),
    "wav16": _Coding("pcm_s16le", "audio/wav", 16_000, 2, 1),
    "wav": _Coding("pcm_s16le", "audio/wav", 8_000, 2, 1),
}


def examine(file: BinaryIO, name: str, size: int) -> Audio:
    """What the file holds, whose name ends in one of Asterisk's formats and which is `size` bytes long.

    Raises: NotAudio for an ending or a header that is not known, or is broken; OSError as the file does.
    """
    ending = PurePosixPath(name).suffix[1:]
    kind = ending.lower()
    if kind in _BEGUN:
        return _wav(file, size) if size else _audio("wav", _BEGUN.get(ending, _BEGUN[kind]), 0)
    if kind in _OGG:
        magic = _read(file, 0, min(size, 4))
        if magic not in (b"", b"OggS"):
            raise NotAudio(f"an Ogg file begins with OggS, this one with the bytes {magic.hex(' ')}")
        return _audio("ogg", _OGG[kind], size)
    if kind in _RAW:
        return _audio("raw", _RAW[kind], size)
    raise NotAudio(
        f"no kind of recording is known by the ending {ending[:20]!r}" if ending else "its name has no ending"
    )


def mended_header(file: BinaryIO, audio: Audio) -> bytes:
    """All that comes before the audio, with the sizes that are true.

    A sound file is this, and then the old one from `data_offset` on. A header without fault is returned as it is; a raw
    file has none: b"". Beyond 4 GiB, 74 hours of 8 kHz, the sizes stay at the largest a RIFF can state, which players
    take for "to the end"; RF64 has room for more, but few can read it.

    Raises: NotAudio if the file is shorter by now; OSError as the file does.
    """
    head = bytearray(_read(file, 0, audio.data_offset))
    if not audio.header_fault:
        return bytes(head)
    _put(head, 4, audio.size - 8)
    _put(head, audio.data_offset - 4, audio.data_bytes)
    for kind, at, stated in _chunks(head):
        if kind == b"fact" and stated >= 4 and at + 4 <= len(head):
            _put(head, at, audio.samples or 0)
    return bytes(head)


def _wav(file: BinaryIO, size: int) -> Audio:
    head = _read(file, 0, min(size, _HEAD))
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        raise NotAudio(f"a WAV file begins with RIFF and WAVE, this one with the bytes {head[:12].hex(' ')}")
    coding = None
    for kind, at, stated in _chunks(head):
        if kind == b"fmt ":
            coding = _format(head[at : at + min(stated, 40)])
        elif kind == b"data":
            break
    else:
        raise NotAudio(f"its header names no audio within the first {len(head)} bytes")
    if coding is None:
        raise NotAudio("its header does not say the format before the audio")
    there = size - at
    if stated < there and _only_chunks(file, at + stated, size, odd=bool(stated % 2)):
        there = stated
    fault = _fault(coding, int.from_bytes(head[4:8], "little"), stated, there, size)
    return _audio("wav", coding, size, at, there, stated, fault)


def _audio(
    container: Literal["wav", "raw", "ogg"],
    coding: _Coding,
    size: int,
    data_offset: int = 0,
    data_bytes: int | None = None,
    stated_bytes: int | None = None,
    header_fault: str = "",
) -> Audio:
    data_bytes = size if data_bytes is None else data_bytes
    return Audio(
        container=container,
        codec=coding.codec,
        mime_type=coding.mime_type,
        rate=coding.rate,
        channels=coding.channels,
        size=size,
        data_offset=data_offset,
        data_bytes=data_bytes,
        samples=data_bytes // coding.block_bytes * coding.block_samples if coding.block_bytes else None,
        stated_bytes=stated_bytes,
        header_fault=header_fault,
    )


def _format(content: bytes) -> _Coding:
    """The coding that a `fmt ` chunk states; the size of its blocks is worked out, not believed."""
    if len(content) < 16:
        raise NotAudio(f"its header describes the format in {len(content)} bytes, not in 16 or more")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == _EXTENSIBLE and content[26:40] == _GUID:
        tag = int.from_bytes(content[24:26], "little")
    if not 1 <= channels <= _CHANNELS or not rate:
        raise NotAudio(f"its header says {channels} channels at {rate} Hz")
    samples = 1
    match tag, bits:
        case (1, 8):
            codec, width = "pcm_u8", 1
        case (1, 16 | 24 | 32):
            codec, width = f"pcm_s{bits}le", bits // 8
        case (3, 32 | 64):
            codec, width = f"pcm_f{bits}le", bits // 8
        case (6, _):
            codec, width = "pcm_alaw", 1
        case (7, _):
            codec, width = "pcm_mulaw", 1
        case (49, _):
            codec, width, samples = "gsm_ms", 65, 320
        case _:
            raise NotAudio(f"its header says the format is 0x{tag:04x} with {bits} bits, which is not known")
    return _Coding(codec, "audio/wav", rate, width * channels, samples, channels)


def _fault(coding: _Coding, riff: int, stated: int, there: int, size: int) -> str:
    # Older Asterisks count the pad byte that makes a WAV49 even before they write it (update_header).
    unpadded = coding.codec == "gsm_ms" and there % 2 == 1 and stated == there + 1
    if stated != min(there, _LARGEST) and not unpadded:
        return f"the header says {stated} bytes of audio, the file has {'only ' * (stated > there)}{there}"
    # Whether a pad byte at the very end counts is told differently by writers, and matters to no player.
    if abs(riff - min(size - 8, _LARGEST)) > 1:
        return f"the header says {riff + 8} bytes in all, the file has {size}"
    return ""


def _chunks(head: bytes | bytearray) -> Iterator[tuple[bytes, int, int]]:
    """(kind, where its content begins, its stated size) of each chunk that begins in this head."""
    at = 12
    while at + 8 <= len(head):
        stated = int.from_bytes(head[at + 4 : at + 8], "little")
        yield bytes(head[at : at + 4]), at + 8, stated
        at += 8 + stated
        # RIFF pads odd chunks with a zero byte. Not all who write it do; no chunk's name begins with zero.
        if stated % 2 and head[at : at + 1] == b"\0":
            at += 1


def _only_chunks(file: BinaryIO, at: int, size: int, *, odd: bool) -> bool:
    """Whether from here to the end of the file there are whole chunks and nothing else, so that none of it is audio."""
    for _ in range(_CHUNKS_AFTER):
        following = _read(file, at, min(9, size - at))
        if odd and following[:1] == b"\0":
            following, at = following[1:], at + 1
        if at == size:
            return True
        stated = int.from_bytes(following[4:8], "little")
        if len(following) < 8 or not all(32 <= letter < 127 for letter in following[:4]) or at + 8 + stated > size:
            return False
        at, odd = at + 8 + stated, bool(stated % 2)
    return at == size


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    content = file.read(count)
    if len(content) < count:
        raise NotAudio(f"the file ended at byte {at + len(content)}, while it was read")
    return content


def _put(head: bytearray, at: int, size: int) -> None:
    struct.pack_into("<I", head, at, min(max(size, 0), _LARGEST))
