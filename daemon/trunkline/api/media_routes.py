"""The routes of media files, declared; routes.py has the others."""

from typing import Final, Literal

from trunkline.api import media_files
from trunkline.api.change import Repeats
from trunkline.api.contract import Answer, Parameter, Route
from trunkline.api.listing import listing_parameters
from trunkline.store.media import MEDIA_FILES as LISTING
from trunkline.store.media import MediaFile

_PRETTY: Final = Parameter(name="pretty", about="1: indented, for human eyes.", type=Literal["0", "1"])
_TAG: Final = "media-files"
FILES_PATH: Final = "/api/v1/media-files"
_ONE: Final = ("media_file_not_found",)
_STORAGE: Final = ("storage_not_configured", "storage_unavailable")

MEDIA_FILES: Final = (
    Route(
        method="POST",
        path=FILES_PATH,
        handler=media_files.add_media_files,
        queues=False,  # it waits for the client and the storage
        about="Store files: each in a part `file` of a form. All of them, or none.",
        tag=_TAG,
        parameters=(_PRETTY,),
        takes="multipart/form-data",
        repeats=Repeats.BY_CONTENT,
        answers=(Answer(about="The media files.", status=201, type=media_files.MediaFileList),),
        problems=(*_STORAGE, "not_multipart", "bad_upload", "upload_broke_off"),
    ),
    Route(
        method="GET",
        path=FILES_PATH,
        handler=media_files.list_media_files,
        about="The media files, the newest first; those of recordings are at the recordings.",
        tag=_TAG,
        parameters=(
            *listing_parameters(LISTING),
            _PRETTY,
        ),
        sparse=True,
        answers=(Answer(about="A page.", type=media_files.MediaFilePage),),
        problems=("bad_cursor",),
    ),
    Route(
        method="GET",
        path=f"{FILES_PATH}/{{id}}",
        sparse=True,
        handler=media_files.get_media_file,
        about="What is known of a media file.",
        tag=_TAG,
        parameters=(_PRETTY,),
        answers=(Answer(about="The media file.", type=MediaFile),),
        problems=_ONE,
    ),
    Route(
        method="DELETE",
        path=f"{FILES_PATH}/{{id}}",
        handler=media_files.delete_media,
        about="Delete a media file, also from the message that it hangs on; its object goes with it.",
        tag=_TAG,
        parameters=(_PRETTY,),
        answers=(Answer(about="It is gone.", status=204),),
        problems=_ONE,
    ),
    Route(
        method="GET",
        path=f"{FILES_PATH}/{{id}}/content",
        handler=media_files.get_media_content,
        queues=False,
        about="The file itself, whole or a span of it.",
        tag=_TAG,
        answers=(
            Answer(about="The whole of it.", content_type="*/*"),
            Answer(about="The span that Range asked for.", status=206, content_type="*/*"),
            Answer(about="It is what the client has (If-None-Match).", status=304),
        ),
        problems=(*_ONE, *_STORAGE, "object_missing", "range_refused"),
    ),
)
