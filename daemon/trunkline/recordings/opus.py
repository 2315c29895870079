"""Recordings as Ogg/Opus: about a tenth of the size, made by ffmpeg in a process of its own. Blocks, for a thread.

What comes out is believed only once it was decoded again and is as long as what went in. ffmpeg sees no file name and
no argument that anybody else has a say in: it reads a pipe and writes into a file that has no name. It yields to
everything else (nice 19), may not take longer or write more than a recording can, and dies with us, for its input ends.

The same sound gives the same bytes, so a recording that is put twice is put over itself.
"""

import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import BinaryIO, Final, Protocol

from trunkline.recordings.audio import Audio

MIME_TYPE: Final = "audio/ogg"
ENDING: Final = ".opus"
TOLERANCE_S: Final = 0.1
_PIECE: Final = 1 << 16  # bytes
_LEAST_S: Final = 60.0  # that a process has, on a busy machine; and the recording's own length
_LOOK_S: Final = 10.0
_MEMORY: Final = 2 << 30  # bytes of address space; it uses some 40 MB
_NICE: Final = 19
# What ffmpeg calls them, and what it must be told of a file without a header.
_FORMATS: Final = {
    "pcm_mulaw": "mulaw",
    "pcm_alaw": "alaw",
    "pcm_s16le": "s16le",
    "gsm": "gsm",
    "g722": "g722",
}
_CHECK_RATE: Final = 8_000


class NoEncoder(Exception):
    """There is no ffmpeg that makes Opus; the text says why, to an admin."""


class NotEncoded(Exception):
    """This recording was not made into Opus; the text says why, to an admin."""


class Readable(Protocol):
    """What is to be encoded."""

    def read(self, size: int = -1, /) -> bytes: ...


class OpusEncoder:
    """An ffmpeg, by its path or its name on PATH."""

    def __init__(self, ffmpeg: str = "ffmpeg") -> None:
        self._named = ffmpeg
        self._least_s = _LEAST_S

    def check(self) -> None:
        """Is it there, and can it make Opus? Raises NoEncoder."""
        try:
            found = subprocess.run(  # the admin's own program
                [self._program(), "-hide_banner", "-loglevel", "error", "-encoders"],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=_LOOK_S, check=False, env=_ENVIRONMENT,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoEncoder(f"{self._named} cannot be run: {error}") from error
        if b" libopus " not in found.stdout:
            raise NoEncoder(f"{self._named} was built without libopus")

    def encode(self, source: Readable, audio: Audio) -> BinaryIO:
        """The recording as Ogg/Opus, in a file without a name, at its beginning.

        Raises NotEncoded, also where there is no room for it, NoEncoder, and as `source` does.
        """
        described = _described(audio)
        if described is None:
            raise NotEncoded(f"no Opus is made of {audio.codec} with {audio.channels} channels")
        made = _nameless()
        try:
            with self._running([*described, *_output(audio)], audio, made, subprocess.PIPE) as encoding:
                assert encoding.stdin is not None  # noqa: S101  # a pipe
                with suppress(BrokenPipeError):  # it ended; why, is told below
                    while piece := source.read(_PIECE):
                        encoding.stdin.write(piece)
                with suppress(BrokenPipeError):
                    encoding.stdin.close()
            self._check_length(made, audio)
        except BaseException:
            made.close()
            raise
        made.seek(0)
        return made

    def _check_length(self, made: BinaryIO, audio: Audio) -> None:
        """Decode it; raises NotEncoded where it is not as long as it should be."""
        made.seek(0)
        decoded = 0
        asked = ["-f", "ogg", "-i", "pipe:0", "-f", "s16le", "-ar", str(_CHECK_RATE), "-ac", "1", "pipe:1"]
        with self._running(asked, audio, subprocess.PIPE, made) as decoding:
            assert decoding.stdout is not None  # noqa: S101  # a pipe
            while piece := decoding.stdout.read(_PIECE):
                decoded += len(piece)
            decoding.stdout.close()
        seconds = decoded / 2 / _CHECK_RATE
        if abs(seconds - (audio.seconds or 0.0)) > TOLERANCE_S:
            raise NotEncoded(f"of {audio.seconds:.2f} s of audio {seconds:.2f} s came out")

    @contextmanager
    def _running(
        self, asked: Sequence[str], audio: Audio, stdout: "BinaryIO | int", stdin: "BinaryIO | int"
    ) -> Iterator[subprocess.Popen[bytes]]:
        """An ffmpeg for the time of the block, at whose end it must have done well. Raises NotEncoded, NoEncoder."""
        limit_s = self._least_s + (audio.seconds or 0.0)
        common = ["-hide_banner", "-nostdin", "-loglevel", "error", "-xerror", "-protocol_whitelist", "pipe"]
        with _nameless() as said:
            # A group of its own, so that Ctrl-C is ours; no session: Linux shares out by these before it looks at nice.
            try:
                process = subprocess.Popen(  # no shell, and no word of anybody else's
                    [self._program(), *common, *asked],
                    stdin=stdin, stdout=stdout, stderr=said, env=_ENVIRONMENT, process_group=0, bufsize=0,
                )  # fmt: skip
            except OSError as error:
                raise NotEncoded(f"{self._named} cannot be run: {error}") from error
            late = threading.Event()

            def end() -> None:
                late.set()
                process.kill()

            watch = threading.Timer(limit_s, end)
            watch.daemon = True
            try:
                _bound(process.pid, limit_s, 2 * audio.size + (1 << 20))
                watch.start()
                yield process
                process.wait()
            finally:
                watch.cancel()
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        with suppress(BrokenPipeError):
                            pipe.close()
            if process.returncode:
                said.seek(0)
                words = " ".join(said.read(400).decode("utf-8", "replace").split())
                why = (
                    f"it took longer than {limit_s:.0f} s"
                    if late.is_set()
                    else words or f"it ended by {process.returncode}"
                )
                raise NotEncoded(f"ffmpeg: {why}")

    def _program(self) -> str:
        found = shutil.which(self._named)
        if found is None:
            raise NoEncoder(f"there is no program {self._named}")
        return os.path.abspath(found)


def _nameless() -> BinaryIO:
    """A file that is gone once it is closed. Raises NotEncoded."""
    try:
        return TemporaryFile(prefix="trunkline-opus-", buffering=0)
    except OSError as error:
        raise NotEncoded(f"there is no room for it: {error}") from error


_ENVIRONMENT: Final = {"LC_ALL": "C"}  # nothing of ours: secrets may be in it


def _described(audio: Audio) -> list[str] | None:
    """What tells ffmpeg how to read it; None for what it is not asked to make Opus of."""
    if audio.container == "wav" and audio.channels <= 2:
        return ["-f", "wav", "-i", "pipe:0"]
    if audio.container == "raw" and audio.codec in _FORMATS:
        rate = [] if audio.codec in ("gsm", "g722") else ["-ar", str(audio.rate), "-ac", "1"]
        return ["-f", _FORMATS[audio.codec], *rate, "-i", "pipe:0"]
    return None


def _output(audio: Audio) -> list[str]:
    bits = (24_000 if audio.rate <= 8_000 else 32_000) * audio.channels
    return [
        *("-map", "0:a:0", "-map_metadata", "-1", "-threads", "1"),
        *("-fflags", "+bitexact", "-flags:a", "+bitexact"),  # no random serial number, no name of the version
        *("-c:a", "libopus", "-application", "voip", "-b:a", str(bits)),
        *("-f", "ogg", "pipe:1"),
    ]  # fmt: skip


def _bound(pid: int, limit_s: float, most_bytes: int) -> None:
    """Let it yield to others, and take no more than it can need."""
    with suppress(ProcessLookupError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, pid, _NICE)
        cpu_s = int(limit_s) + 1
        for kind, most in (
            (resource.RLIMIT_CPU, cpu_s),
            (resource.RLIMIT_FSIZE, most_bytes),
            (resource.RLIMIT_AS, _MEMORY),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.prlimit(pid, kind, (most, most))
