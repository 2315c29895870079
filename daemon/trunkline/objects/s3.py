"""Object storage by S3's protocol: put, read back, hand out, remove. Blocking calls, for a thread; safe in several.

What goes wrong is a StoreFault that says whose fault it is: of the storage as a whole (away, refusing us), which every
recording would meet, or of this one object.

The client is made, and its libraries are loaded, when the storage is first asked for something: 10 MB.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple
from urllib.parse import urlsplit

from trunkline.objects.faults import NoObject, StoreFault

if TYPE_CHECKING:
    import urllib3
    from minio import Minio
    from minio.error import S3Error
    from minio.helpers import DictType
    from minio.sse import SseS3

PART: Final = 8 << 20  # bytes held of an upload
LEAST_PART: Final = 5 << 20  # bytes of each part but the last: S3 takes no shorter ones
CHUNK: Final = 1 << 18  # bytes of a download
_CONNECT_S: Final = 5.0
_SILENT_S: Final = 30.0  # without a byte
_KEY_WRONG: Final = frozenset(
    "AccessDenied InvalidAccessKeyId SignatureDoesNotMatch InvalidSecurity ExpiredToken InvalidToken "
    "RequestTimeTooSkewed AccountProblem AllAccessDisabled NotSignedUp".split()
)
_FULL: Final = frozenset({"XMinioStorageFull", "QuotaExceeded", "InsufficientCapacity", "XAmzQuotaExceeded"})
_AGAIN: Final = frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "ServerBusy"})


class ObjectInfo(NamedTuple):
    """What was read back of an object."""

    size: int  # bytes
    sha256: str  # hexadecimal


class ObjectStore:
    """One bucket.

    endpoint: URL, `http://127.0.0.1:9000` or `https://s3.eu-west-1.amazonaws.com`. encrypted: ask the server to encrypt
    (SSE-S3). opened: is called once the client is made, and its libraries are loaded.
    """

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        *,
        region: str = "us-east-1",
        path_style: bool = True,
        encrypted: bool = False,
        at_once: int = 8,
        silent_s: float = _SILENT_S,
        opened: Callable[[], object] = lambda: None,
    ) -> None:
        # More readers than the pool keeps connections for are nothing to warn of; those beyond are closed after use.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        self.endpoint = endpoint
        self.bucket = bucket
        self._keys = (access_key, secret_key)
        self._region = region
        self._path_style = path_style
        self._encrypted = encrypted
        self._at_once = at_once
        self._silent_s = silent_s
        self._when_made = opened
        self._url = urlsplit(endpoint)
        self._making = threading.Lock()
        self._made: _Client | None = None

    @property
    def _client(self) -> "Minio":
        return self._opened().minio

    def _opened(self) -> "_Client":
        """The client, which the first who asks makes. Raises StoreFault."""
        with self._making:
            if self._made is None:
                self._made = self._make()
                self._when_made()
            return self._made

    def _make(self) -> "_Client":
        import urllib3
        from minio import Minio
        from minio.sse import SseS3

        timeout = urllib3.Timeout(connect=_CONNECT_S, read=self._silent_s)
        http = urllib3.PoolManager(maxsize=self._at_once, timeout=timeout, retries=False)
        try:
            client = Minio(
                endpoint=self._url.netloc,
                access_key=self._keys[0],
                secret_key=self._keys[1],
                secure=self._url.scheme == "https",
                region=self._region,
                http_client=http,
            )
        except ValueError as error:  # it knows more of AWS' hosts and regions than our settings do
            raise StoreFault(f"it cannot be asked: {_line(error)}", "recordings.endpoint and region") from error
        if not self._path_style:
            client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        return _Client(client, http, SseS3() if self._encrypted else None)

    def check(self) -> None:
        """Is the bucket there, and may we look? Raises StoreFault."""
        with _told(self):
            if not self._client.bucket_exists(bucket_name=self.bucket):
                raise self.no_bucket()

    def put(self, key: str, data: BinaryIO, size: int, *, mime_type: str, metadata: Mapping[str, str]) -> None:
        """Store `size` bytes of `data`; PART bytes of them are held at a time. Raises StoreFault."""
        with _told(self, key):
            if size > PART:
                self._forget_begun(key)
            self._client.put_object(
                bucket_name=self.bucket,
                object_name=key,
                data=data,
                length=size,
                content_type=mime_type,
                metadata=dict(metadata),
                sse=self._opened().sse,
                part_size=PART,
                num_parallel_uploads=1,
            )

    def begin(self, key: str, *, mime_type: str) -> str:
        """Begin an object that comes in parts; its upload's id. Raises StoreFault."""
        with _told(self, key):
            sse = self._opened().sse
            headers: DictType = {"Content-Type": mime_type, **(sse.headers() if sse is not None else {})}
            return self._client._create_multipart_upload(self.bucket, key, headers)

    def add(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        """Store part `number`, from 1, of LEAST_PART bytes or more but for the last; its ETag. Raises StoreFault."""
        with _told(self, key):
            return self._client._upload_part(self.bucket, key, data, None, upload_id, number)

    def complete(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        """Make the object of its parts. Raises StoreFault."""
        from minio.datatypes import Part

        with _told(self, key):
            parts = [Part(number, etag) for number, etag in enumerate(etags, 1)]
            self._client._complete_multipart_upload(self.bucket, key, upload_id, parts)

    def read(self, key: str, offset: int = 0, size: int = 0) -> Iterator[bytes]:
        """The bytes of an object in chunks, from `offset` on, `size` of them (0: all). Raises StoreFault, NoObject."""
        with _told(self, key):
            response = self._client.get_object(bucket_name=self.bucket, object_name=key, offset=offset, length=size)
            try:
                if offset and response.status != 206:
                    raise StoreFault("it knows no Range: it sent the whole object", of_the_store=False)
                yield from response.stream(CHUNK, decode_content=False)  # spares two copies
            finally:
                response.close()
                response.release_conn()

    def read_back(self, key: str) -> ObjectInfo:
        """Read all of an object. Raises StoreFault, NoObject."""
        digest, size = sha256(), 0
        for chunk in self.read(key):
            digest.update(chunk)
            size += len(chunk)
        return ObjectInfo(size, digest.hexdigest())

    def presign(self, key: str, seconds: int, mime_type: str, disposition: str) -> str:
        """A URL that lets whoever has it read the object for so long. Raises StoreFault."""
        return self._client.presigned_get_object(
            bucket_name=self.bucket,
            object_name=key,
            expires=timedelta(seconds=seconds),
            response_headers={"response-content-type": mime_type, "response-content-disposition": disposition},
        )

    def remove(self, key: str) -> None:
        """Remove an object; one that is not there is gone already. Raises StoreFault."""
        with _told(self, key):
            self._forget_begun(key)
            self._client.remove_object(bucket_name=self.bucket, object_name=key)

    def _forget_begun(self, key: str) -> None:
        """Let go of what a put that was killed has left: parts of no object, which cost and hold what was said."""
        from minio.error import S3Error

        with suppress(S3Error):  # a key may be allowed to put and not to list
            for begun in self._client._list_multipart_uploads(self.bucket, prefix=key).uploads:
                self._client._abort_multipart_upload(self.bucket, key, begun.upload_id or "")

    def exists(self, key: str) -> bool:
        """Is there an object of that key? Raises StoreFault."""
        try:
            with _told(self, key):
                self._client.stat_object(bucket_name=self.bucket, object_name=key)
        except NoObject:
            return False
        return True

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._making:
            if self._made is not None:
                self._made.http.clear()

    def no_bucket(self) -> StoreFault:
        """Say that the bucket is not there."""
        return StoreFault(f"there is no bucket {self.bucket!r}", "make it, or set recordings.bucket to one there is")


class _Client(NamedTuple):
    """What speaks S3."""

    minio: "Minio"
    http: "urllib3.PoolManager"
    sse: "SseS3 | None"


@contextmanager
def _told(store: ObjectStore, key: str = "") -> Iterator[None]:
    """Turn what minio and urllib3 raise into StoreFault."""
    import urllib3
    from minio.error import InvalidResponseError, S3Error, ServerError

    try:
        yield
    except S3Error as error:
        raise _refused(store, key, error) from error
    except (ServerError, InvalidResponseError) as error:
        raise StoreFault(f"it answers with an error: {_line(error)}") from error
    except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
        todo = "start it, or set recordings.endpoint to where it is"
        raise StoreFault(f"{store.endpoint} cannot be reached", todo) from error
    except urllib3.exceptions.SSLError as error:
        raise StoreFault(f"TLS to {store.endpoint} fails: {_line(error)}", "its certificate") from error
    except urllib3.exceptions.ReadTimeoutError as error:
        raise StoreFault(f"{store.endpoint} does not answer") from error
    except urllib3.exceptions.HTTPError as error:
        raise StoreFault(f"the connection broke: {_line(error)}") from error


def _refused(store: ObjectStore, key: str, error: "S3Error") -> StoreFault:
    code, status = error.code or "", error.response.status
    if code in ("NoSuchKey", "NoSuchObject", "NotFound") or (status == 404 and not code):
        return NoObject(key)
    if code == "NoSuchBucket":
        return store.no_bucket()
    if code in _KEY_WRONG or status in (401, 403):
        return StoreFault(f"it refuses our key ({code})", "recordings.access_key, secret_key and the key's rights")
    if code in _FULL or status == 507:
        return StoreFault(f"it is full ({code})", "make room in the object storage")
    if code in _AGAIN or status >= 500:
        return StoreFault(f"it answers with an error ({code or status})")
    return StoreFault(f"it refused the object ({code}: {_line(error)})", of_the_store=False)


def _line(error: BaseException) -> str:
    """What an error says, as one line that fits a log and a row."""
    return " ".join(str(error).split())[:200] or type(error).__name__
