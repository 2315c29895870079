"""The ffmpeg of the tests: a wheel's, with libopus, so that none need be installed; and what it makes."""

import io

from imageio_ffmpeg import get_ffmpeg_exe

from trunkline.recordings.audio import Audio, examine
from trunkline.recordings.opus import OpusEncoder

FFMPEG = get_ffmpeg_exe()


def audio_of(name: str, data: bytes) -> tuple[Audio, io.BytesIO]:
    file = io.BytesIO(data)
    audio = examine(file, name, len(data))
    file.seek(0)
    return audio, file


def encoded(name: str, data: bytes, encoder: OpusEncoder | None = None) -> bytes:
    audio, file = audio_of(name, data)
    with (encoder or OpusEncoder(FFMPEG)).encode(file, audio) as made:
        return made.read()
