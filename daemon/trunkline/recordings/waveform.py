"""The waveform of a stored recording, made when it is first asked for: most recordings are never looked at."""

from collections.abc import Iterator
from tempfile import TemporaryFile

import msgspec

from trunkline.recordings.audio import NotAudio, examine
from trunkline.recordings.peaks import NoPeaks, peaks


def waveform(chunks: Iterator[bytes], name: str) -> bytes:
    """The waveform, as JSON, of the recording that these are the bytes of. Blocks, with a file of their size on disk.

    Raises NoPeaks, OSError, and as `chunks` does.
    """
    with TemporaryFile(prefix="trunkline-waveform-") as file:
        size = sum(map(file.write, chunks))
        try:
            return msgspec.json.encode(peaks(file, examine(file, name, size)))
        except NotAudio as error:
            raise NoPeaks(str(error)) from error
