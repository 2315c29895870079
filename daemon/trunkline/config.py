"""Settings: one TOML file and the environment, read and checked once, every mistake told at once.

Rooms are handed values out of these, never the settings themselves. `load()` is the way in;
trunkline.example.toml explains each key to the admin.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from trunkline.config_reading import ConfigError, Reader, Secret, Section

DEFAULT_FILE = "trunkline.toml"
FILE_VARIABLE = "TRUNKLINE_CONFIG"
SHORTEST_KEY = 16
SHORTEST_SECRET = 32
CALLBACK = "/api/v1/auth/oidc/callback"

Port = Annotated[int, Meta(ge=1, le=65535, description="a port, 1 to 65535")]
FreePort = Annotated[int, Meta(ge=0, le=65535, description="a port, 1 to 65535, or 0 for any free one")]
Line = Annotated[
    str, Meta(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+\Z", description="text without control characters")
]
Context = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,79}\Z", description="the name of a context of the dialplan")]
Host = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:%-]+\Z", description="a host name or an IP address")]


Destination = Annotated[
    str,
    Meta(
        pattern=r"^([A-Z]{2}|\+[1-9][0-9]{0,14})\Z",
        description='a list of countries ("GB") and beginnings of E.164 numbers ("+4420")',
    ),
]


def region_problems(region: str | None) -> list[str]:
    """What is wrong with a region: that it is no country."""
    if region is None:
        return []
    from phonenumbers import SUPPORTED_REGIONS  # here: slow to load, and not every command reads settings

    if region in SUPPORTED_REGIONS:
        return []
    meant = f" did you mean {region.upper()}?" if region.upper() in SUPPORTED_REGIONS else ""
    return [f'region: {region!r} is no country;{meant} allowed: an ISO 3166 country code such as "GB"']


class Account(Section, frozen=True, kw_only=True):
    """Whose calls these are."""

    name: Line = "default"
    region: Annotated[str, Meta(description='an ISO 3166 country code such as "GB"')] | None = None

    def problems(self, unread: Collection[str]) -> list[str]:
        """Refuse a country that is none."""
        return region_problems(self.region)


class Database(Section, frozen=True, kw_only=True):
    """PostgreSQL."""

    url: Annotated[Secret, Meta(description="postgresql://USER:PASSWORD@HOST:PORT/DATABASE")]

    def problems(self, unread: Collection[str]) -> list[str]:
        """Refuse what is no URL of a PostgreSQL database, without showing it: it holds the password."""
        if "url" in unread:
            return []
        allowed = "allowed: postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        try:
            url = urlsplit(self.url.reveal())
            _ = url.port  # parsed when asked for, and raises when it is no port
        except ValueError:
            return [f"url: is not a URL; {allowed}"]
        if url.scheme not in ("postgresql", "postgres"):
            return [f"url: does not begin with postgresql://; {allowed}"]
        return [] if url.path.strip("/") else [f"url: names no database; {allowed}"]


class Pbx(Section, frozen=True, kw_only=True):
    """One Asterisk and how its AMI is reached."""

    host: Host
    port: Port | None = None  # None: see ami_port
    username: Line = "events"  # the one of asterisk-config/manager.conf that only reads
    secret: Annotated[Secret, Meta(description="the AMI user's secret, text without control characters")]
    tls: Annotated[Line, Meta(description='"off", "on", or the path of a CA file')] = "off"
    systemname: Line | None = None  # None: learnt from the first event
    trunks: Annotated[
        tuple[Line, ...], Meta(min_length=1, description='a list of endpoint patterns such as ["PJSIP/trunk*"]')
    ] = ("PJSIP/trunk*",)
    region: Annotated[str, Meta(description='an ISO 3166 country code such as "GB"')] | None = None
    enabled: bool = True
    recordings: (
        Annotated[Path, Meta(description="the directory where this PBX records, as this machine sees it")] | None
    ) = None
    recordings_seen_as: (
        Annotated[
            str, Meta(pattern=r"^/[^\x00-\x1f\x7f]*\Z", description="the same directory's absolute path on the PBX")
        ]
        | None
    ) = None

    voicemail: (
        Annotated[Path, Meta(description="the directory with this PBX's mailboxes, as this machine sees it")] | None
    ) = None
    ari_url: Annotated[str, Meta(description='a URL such as "http://127.0.0.1:8088"')] = (
        ""  # "": ARI is not listened to
    )
    ari_user: Annotated[
        str, Meta(pattern=r"^[^\x00-\x1f\x7f:]+\Z", description="a section's name of ari.conf, no colon in it")
    ] = "recordings"  # the one of asterisk-config/ari.conf that only reads
    ari_secret: Annotated[Secret, Meta(description="the ARI user's password")] | None = None
    ari_recordings: (
        Annotated[Path, Meta(description="the directory where ARI's recordings are, as this machine sees it")] | None
    ) = None
    ari_recordings_seen_as: (
        Annotated[
            str, Meta(pattern=r"^/[^\x00-\x1f\x7f]*\Z", description="the same directory's absolute path on the PBX")
        ]
        | None
    ) = None

    control_username: Line = "control"  # the one of asterisk-config/manager.conf that acts, and hears nothing
    control_secret: (
        Annotated[Secret, Meta(description="the control user's secret, text without control characters")] | None
    ) = None  # None: nothing can be commanded on this PBX
    agents: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[0-9?*\[\]!-]{1,40}\Z")], ...],
        Meta(description='a list of patterns of agents\' extensions such as ["10??"]'),
    ] = ("[1-9][0-9][0-9][0-9]",)
    agent_endpoint: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9]{1,20}/[A-Za-z0-9_.-]*\{extension\}[A-Za-z0-9_.@-]*\Z",
            description='a channel with {extension} in it, such as "PJSIP/{extension}"',
        ),
    ] = "PJSIP/{extension}"
    agent_context: Context = "agents"  # of the dialplan: what an agent's phone may dial
    dial: Annotated[
        str,
        Meta(
            pattern=r"^[0-9*#]{0,8}\{(e164|digits)\}\Z",
            description='what is dialled: "{e164}" with +, or "{digits}" without, digits * # before it',
        ),
    ] = "{e164}"
    hold_context: Context = "trunkline-hold"

    @property
    def ami_port(self) -> int:
        """The port, or the usual one in manager.conf: 5038, with TLS 5039."""
        return self.port or (5038 if self.tls == "off" else 5039)

    def problems(self, unread: Collection[str]) -> list[str]:
        """Refuse a secret that would break the AMI's lines, a country that is none, a CA file that is not there."""
        problems = []
        if "secret" not in unread and any(ord(c) < 32 or ord(c) == 127 for c in self.secret.reveal()):
            problems.append("secret: holds a control character or line end; allowed: text without control characters")
        if self.control_secret is not None and any(ord(c) < 32 or ord(c) == 127 for c in self.control_secret.reveal()):
            allowed = "allowed: text without control characters"
            problems.append(f"control_secret: holds a control character or line end; {allowed}")
        problems += region_problems(self.region)
        if self.recordings is not None and not self.recordings.is_dir():
            problems.append(f"recordings: {self.recordings} is no directory; allowed: where the PBX's recordings are")
        if self.voicemail is not None and not self.voicemail.is_dir():
            problems.append(f"voicemail: {self.voicemail} is no directory; allowed: where the PBX's mailboxes are")
        if self.recordings_seen_as is not None and self.recordings is None and "recordings" not in unread:
            problems.append("recordings_seen_as: needs recordings, the same directory as this machine sees it")
        problems += self._ari_problems(unread)
        if self.tls not in ("off", "on") and not Path(self.tls).is_file():
            problems.append(f'tls: {self.tls!r} is no file; allowed: "off", "on", or the path of a CA file')
        return problems

    def _ari_problems(self, unread: Collection[str]) -> list[str]:
        """Refuse a URL that is none, half a login, and directories that are not there."""
        problems = []
        if self.ari_url and "ari_url" not in unread and not _is_url(self.ari_url):
            problems.append('ari_url: is no URL of an ARI; allowed: "http://HOST:PORT" or "https://HOST:PORT"')
        if self.ari_url and self.ari_secret is None and "ari_secret" not in unread:
            problems.append("ari_secret or ari_secret_file: is missing; allowed: the password of ari_user in ari.conf")
        if not self.ari_url and self.ari_secret is not None and "ari_url" not in unread:
            problems.append('ari_url: is missing, so ari_secret has no effect; allowed: "http://HOST:PORT"')
        if self.ari_recordings is not None and not self.ari_recordings.is_dir():
            allowed = "allowed: where what ARI records is"
            problems.append(f"ari_recordings: {self.ari_recordings} is no directory; {allowed}")
        return problems


_ORIGIN = re.compile(r"https?://[a-z0-9.\-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?", re.ASCII)


class Http(Section, frozen=True, kw_only=True):
    """The API's listener."""

    host: Host = "127.0.0.1"
    port: FreePort = 8080
    api_keys: Annotated[
        tuple[Secret, ...], Meta(description=f"a list of keys, each of {SHORTEST_KEY} or more characters, no spaces")
    ] = ()

    allowed_origins: Annotated[
        tuple[str, ...], Meta(description='a list of other sites\' origins such as ["https://crm.example.com"]')
    ] = ()
    rate_limit: Annotated[
        float, Meta(ge=0, le=100_000, description="requests a second of each key or user, 0 for no limit")
    ] = 0.0
    reuse_port: bool = False  # several processes on one port of this machine
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description='a list of networks whose X-Forwarded-For is believed, ["10.0.0.0/8"]')
    ] = ()

    def problems(self, unread: Collection[str]) -> list[str]:
        """Refuse guessable keys."""
        problems = []
        for n, key in enumerate(self.api_keys, 1):
            text = key.reveal()
            if len(text) < SHORTEST_KEY or not text.isascii() or not text.isprintable() or " " in text:
                wanted = f"{SHORTEST_KEY} or more printable ASCII characters, no spaces"
                problems.append(f"api_keys: key {n} is too short or not printable; allowed: {wanted}")
        problems += [
            f'allowed_origins: {origin[:60]!r} is no origin; allowed: scheme and host alone, such as "https://crm.example.com"'
            for origin in self.allowed_origins
            if not _ORIGIN.fullmatch(origin)
        ]
        problems += _no_networks("trusted_proxies", self.trusted_proxies)
        return problems


class Auth(Section, frozen=True, kw_only=True):
    """Users that log in, and who must."""

    required: bool = False  # nobody is let in without a key or a login, from this machine neither
    secret: (
        Annotated[Secret, Meta(description=f"a text of {SHORTEST_SECRET} or more characters; left out: made")] | None
    ) = None
    audit_days: Annotated[int, Meta(ge=1, le=36500, description="days, 1 to 36500")] = 400  # how long it is kept

    def problems(self, unread: Collection[str]) -> list[str]:
        """Refuse a secret that can be guessed: who has it can log in as anybody."""
        if self.secret is not None and len(self.secret.reveal().encode()) < SHORTEST_SECRET:
            return [
                f"secret: is too short; allowed: {SHORTEST_SECRET} or more characters, such as `openssl rand -hex 32`"
            ]
        return []


class Oidc(Section, frozen=True, kw_only=True):
    """An OpenID Connect issuer where users log in. Without `issuer` there is none."""

    issuer: Annotated[str, Meta(description='the URL of an issuer such as "https://id.example.com/realms/office"')] = ""
    client_id: Line | None = None
    client_secret: Annotated[Secret, Meta(description="the client's secret; left out: a public client")] | None = None
    redirect_url: Annotated[
        str, Meta(description='where the issuer sends back to: "https://THIS_API/api/v1/auth/oidc/callback"')
    ] = ""
    label: Line = "Single sign-on"  # on the button
    default_role: (
        Annotated[
            Literal["ADMIN", "SUPERVISOR", "AGENT", "VIEWER"],
            Meta(description="ADMIN, SUPERVISOR, AGENT or VIEWER: what whom nobody knows becomes; left out: refused"),
        ]
        | None
    ) = None

    def problems(self, unread: Collection[str]) -> list[str]:
        """Refuse half a configuration, and what would send codes over the wire in the clear."""
        if not self.issuer and "issuer" not in unread:
            missing = "issuer: is missing, so the others have no effect; allowed: the URL of an issuer"
            return [missing] if unread or self != Oidc() else []
        problems = []
        for key, url in (("issuer", self.issuer), ("redirect_url", self.redirect_url)):
            if key not in unread and not _safe_url(url):
                problems.append(
                    f"{key}: is no https URL without a query; allowed: "
                    'such as "https://HOST/PATH", http only for this machine'
                )
        if not self.client_id and "client_id" not in unread:
            problems.append("client_id: is missing; allowed: what the issuer knows this API by")
        if _safe_url(self.redirect_url) and not urlsplit(self.redirect_url).path.endswith(CALLBACK):
            problems.append(f"redirect_url: does not end with {CALLBACK}; allowed: the URL of that route")
        return problems


class Integrations(Section, frozen=True, kw_only=True):
    """What seals the secrets of integrations in the database. The first key seals; all open what they have sealed."""

    secret_keys: Annotated[tuple[Secret, ...], Meta(description="a list of keys, each of 64 hexadecimal digits")] = ()

    def problems(self, unread: Collection[str]) -> list[str]:
        """Refuse what is no key."""
        return [
            f"secret_keys: key {n} is none; allowed: 64 hexadecimal digits, as `openssl rand -hex 32` makes them"
            for n, key in enumerate(self.secret_keys, 1)
            if not re.fullmatch(r"[0-9a-fA-F]{64}", key.reveal(), re.ASCII)
        ]


class Log(Section, frozen=True, kw_only=True):
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["pretty", "json"] = "pretty"


class Spool(Section, frozen=True, kw_only=True):
    """Where calls wait on disk while PostgreSQL is away."""

    path: Annotated[Path, Meta(description="a directory that the daemon may write to")] = Path("spool")


class Recordings(Section, frozen=True, kw_only=True):
    """Where recordings are kept: a bucket of any S3. Without `endpoint` they stay where the PBX puts them."""

    endpoint: Annotated[str, Meta(description='a URL such as "https://s3.eu-west-1.amazonaws.com"')] = ""
    bucket: Annotated[
        str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z", description="a bucket's name, 3 to 63 of a-z 0-9 . -")
    ] = "trunkline"
    region: Line = "us-east-1"
    access_key: Annotated[Secret, Meta(description="the access key's id")] = Secret("")
    secret_key: Annotated[Secret, Meta(description="the access key's secret")] = Secret("")
    prefix: Annotated[
        str,
        Meta(pattern=r"^([A-Za-z0-9!_.*'()-]+/)*\Z", description='"" or the beginning of every key, such as "pbx/"'),
    ] = ""
    path_style: bool = True  # False: BUCKET.HOST, as AWS prefers
    encryption: Annotated[Literal["off", "sse-s3"], Meta(description='"off" or "sse-s3", done by the server')] = "off"
    at_once: Annotated[int, Meta(ge=2, le=64, description="2 to 64 uploads at a time")] = 4
    keep_local: bool = False  # leave the files in the PBX's directory
    format: Annotated[Literal["wav", "opus"], Meta(description='"wav" (as the PBX writes them) or "opus"')] = "wav"
    ffmpeg: Annotated[Line, Meta(description="the path of ffmpeg, or its name on PATH")] = "ffmpeg"
    sweep_s: Annotated[float, Meta(ge=1, le=86400, description="seconds, 1 to 86400")] = 60.0
    retention_days: Annotated[int, Meta(ge=1, description="days, 1 or more; left out: for ever")] | None = None
    retention_days_by_queue: Annotated[
        dict[str, Annotated[int, Meta(ge=1, description="days, a whole number, 1 or more")]],
        Meta(description="a section of QUEUE = days, each 1 or more"),
    ] = msgspec.field(default_factory=dict)

    def problems(self, unread: Collection[str]) -> list[str]:
        """Refuse an endpoint that is none, and half a configuration."""
        if not self.endpoint and "endpoint" not in unread:
            missing = "endpoint: is missing, so the others have no effect; allowed: the URL of an S3"
            return [missing] if unread or self != Recordings() else []
        problems = []
        if self.endpoint and not _bare_url(self.endpoint):
            problems.append(
                'endpoint: is no URL of an S3; allowed: "https://HOST" or "http://HOST:PORT", nothing behind'
            )
        for key, what in (("access_key", "the access key's id"), ("secret_key", "the access key's secret")):
            if key not in unread and not getattr(self, key).reveal():
                problems.append(f"{key} or {key}_file: is missing; allowed: {what}")
        return problems


class Media(Section, frozen=True, kw_only=True):
    """Files that are uploaded, for messages; they are kept where recordings are."""

    largest_mb: Annotated[int, Meta(ge=1, le=5000, description="MB of a file, 1 to 5000")] = 25
    largest_request_mb: Annotated[int, Meta(ge=1, le=50000, description="MB of all files of a request")] = 100
    at_once: Annotated[int, Meta(ge=1, le=64, description="1 to 64 requests at a time, each holding up to 10 MB")] = 4


class Webhooks(Section, frozen=True, kw_only=True):
    """How events are told to the URLs that the API is given."""

    allow_http: bool = False  # else only https
    allow_networks: Annotated[
        tuple[str, ...], Meta(description='a list of networks that are not public and yet allowed, ["10.0.0.0/8"]')
    ] = ()
    at_once: Annotated[int, Meta(ge=4, le=1024, description="4 to 1024 receivers at a time")] = 128
    keep_days: Annotated[int, Meta(ge=1, le=3650, description="days, 1 to 3650")] = 30  # the log of deliveries

    def problems(self, unread: Collection[str]) -> list[str]:
        """Refuse what is no network."""
        return _no_networks("allow_networks", self.allow_networks)


class Commands(Section, frozen=True, kw_only=True):
    """Which calls to the outside may be ordered by the API, and how many. Extensions may always be called."""

    destinations: tuple[Destination, ...] = ()  # none: no number outside can be called or transferred to by command
    denied: tuple[Destination, ...] = ()
    premium: bool = False
    per_second: Annotated[float, Meta(ge=0.01, le=1000, description="calls a second, 0.01 to 1000")] = 1.0
    at_once: Annotated[int, Meta(ge=1, le=10_000, description="calls at once, 1 to 10000")] = 10
    per_day: Annotated[int, Meta(ge=1, le=1_000_000, description="calls in 24 hours, 1 to 1000000")] = 500


class ApiSettings(Section, frozen=True, kw_only=True):
    """What the API needs, alone or not."""

    account: Account = Account()
    auth: Auth = Auth()
    commands: Commands = Commands()
    database: Database
    http: Http = Http()
    integrations: Integrations = Integrations()
    log: Log = Log()
    media: Media = Media()
    oidc: Oidc = Oidc()
    recordings: Recordings = Recordings()
    webhooks: Webhooks = Webhooks()

    @property
    def region(self) -> str | None:
        """The country of numbers that people write without one, of leads and in commands."""
        return self.account.region


class Settings(ApiSettings, frozen=True, kw_only=True):
    """Everything that was configured."""

    pbx: tuple[Pbx, ...]
    spool: Spool = Spool()

    @property
    def region(self) -> str | None:
        """The account's, or the one that all PBXs are in that are followed."""
        regions = {pbx.region for pbx in self.pbx if pbx.enabled}
        return self.account.region or (regions.pop() if len(regions) == 1 else None)


_SECTIONS: dict[str, type[Section]] = {
    "account": Account,
    "auth": Auth,
    "commands": Commands,
    "database": Database,
    "http": Http,
    "integrations": Integrations,
    "log": Log,
    "media": Media,
    "oidc": Oidc,
    "pbx": Pbx,
    "recordings": Recordings,
    "spool": Spool,
    "webhooks": Webhooks,
}
_FILE_KEYS = {
    ("database", "url_file"): "url",
    ("auth", "secret_file"): "secret",
    ("oidc", "client_secret_file"): "client_secret",
    ("pbx", "secret_file"): "secret",
    ("pbx", "ari_secret_file"): "ari_secret",
    ("pbx", "control_secret_file"): "control_secret",
    ("http", "api_key_file"): "api_keys",
    ("integrations", "secret_key_file"): "secret_keys",
    ("recordings", "access_key_file"): "access_key",
    ("recordings", "secret_key_file"): "secret_key",
}
_VARIABLES = {  # beside these, for the nth [[pbx]]: TRUNKLINE_PBX_<n>_[ARI_|CONTROL_]SECRET[_FILE]
    "TRUNKLINE_ACCOUNT_NAME": ("account", "name"),
    "TRUNKLINE_AUTH_SECRET": ("auth", "secret"),
    "TRUNKLINE_AUTH_SECRET_FILE": ("auth", "secret_file"),
    "TRUNKLINE_DATABASE_URL": ("database", "url"),
    "TRUNKLINE_DATABASE_URL_FILE": ("database", "url_file"),
    "TRUNKLINE_HTTP_API_KEYS": ("http", "api_keys"),  # separated by commas
    "TRUNKLINE_HTTP_API_KEY_FILE": ("http", "api_key_file"),
    "TRUNKLINE_HTTP_HOST": ("http", "host"),
    "TRUNKLINE_HTTP_PORT": ("http", "port"),
    "TRUNKLINE_LOG_FORMAT": ("log", "format"),
    "TRUNKLINE_LOG_LEVEL": ("log", "level"),
    "TRUNKLINE_OIDC_CLIENT_SECRET": ("oidc", "client_secret"),
    "TRUNKLINE_OIDC_CLIENT_SECRET_FILE": ("oidc", "client_secret_file"),
    "TRUNKLINE_RECORDINGS_ACCESS_KEY": ("recordings", "access_key"),
    "TRUNKLINE_RECORDINGS_ACCESS_KEY_FILE": ("recordings", "access_key_file"),
    "TRUNKLINE_RECORDINGS_BUCKET": ("recordings", "bucket"),
    "TRUNKLINE_RECORDINGS_ENDPOINT": ("recordings", "endpoint"),
    "TRUNKLINE_RECORDINGS_SECRET_KEY": ("recordings", "secret_key"),
    "TRUNKLINE_RECORDINGS_SECRET_KEY_FILE": ("recordings", "secret_key_file"),
    "TRUNKLINE_SPOOL_PATH": ("spool", "path"),
}


def locate(file: str | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the settings are: `file`, else $TRUNKLINE_CONFIG, else trunkline.toml."""
    return Path(file or environ.get(FILE_VARIABLE) or DEFAULT_FILE)


def load(file: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from `file`, else $TRUNKLINE_CONFIG, else trunkline.toml. Raises ConfigError."""
    path = locate(file, environ)
    return check(_read(path), source=str(path), base=path.parent, environ=environ)


def load_database(file: str | None = None, environ: Mapping[str, str] = os.environ) -> Database:
    """Read only [database], for commands that need no PBX; the environment alone will do. Raises ConfigError."""
    database = load_sections(file, ("database",), environ)["database"]
    assert isinstance(database, Database)  # noqa: S101  # what was asked for
    return database


def load_api(file: str | None = None, environ: Mapping[str, str] = os.environ) -> ApiSettings:
    """Read what the API alone needs: no PBX, no spool; the environment alone will do. Raises ConfigError."""
    sections: dict[str, Any] = load_sections(file, ApiSettings.__struct_fields__, environ)
    return ApiSettings(**sections)


def load_sections(file: str | None, names: Sequence[str], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Read only some sections, [database] among them, by name. Raises ConfigError."""
    path = locate(file, environ)
    from_environment = any(
        variable in environ for variable, (section, _) in _VARIABLES.items() if section == "database"
    )
    raw = {} if from_environment and not file and not path.exists() else _read(path)
    reader = Reader(path.parent, _FILE_KEYS)
    tables = _tables(raw, reader)
    _override(tables, environ)
    found: dict[str, Any] = {name: reader.section(name, _SECTIONS[name], tables.get(name, {})) for name in names}
    if "http" in names:
        _refuse_open_door(found["http"], found.get("auth"), tables.get("http", {}), reader)
    if reader.problems:
        raise ConfigError(str(path), reader.problems)
    return {name: section for name, section in found.items() if section is not None}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        hint = "copy trunkline.example.toml to it, or name another by --config or TRUNKLINE_CONFIG"
        raise ConfigError(str(path), [f"there is no such file; {hint}"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"it cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), ["it is not UTF-8 text"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [f"it is not TOML: {error}"]) from None


def check(
    raw: Mapping[str, Any], *, source: str = "settings", base: Path = Path(), environ: Mapping[str, str] | None = None
) -> Settings:
    """Turn a decoded TOML document into Settings. Relative paths count from `base`. Raises ConfigError."""
    reader = Reader(base, _FILE_KEYS)
    tables = _tables(raw, reader)
    _override(tables, environ or {})
    tables.setdefault("spool", {}).setdefault("path", "spool")  # so that the default counts from base too
    values: dict[str, Any] = {
        name: reader.section(name, kind, tables.get(name, {})) for name, kind in _SECTIONS.items() if name != "pbx"
    }
    rows = tables.get("pbx", [])
    for row in rows:
        if isinstance(tls := row.get("tls"), str) and tls not in ("off", "on"):
            row["tls"] = str(base / tls)
    values["pbx"] = tuple(reader.section(f"pbx[{n}]", Pbx, row) for n, row in enumerate(rows, 1))
    if not rows and not any(problem.startswith("pbx:") for problem in reader.problems):
        reader.problems.append("pbx: there is none; allowed: one [[pbx]] section for each PBX, with host and secret")
    _refuse_twins(values["pbx"], reader)
    _refuse_open_door(values["http"], values["auth"], tables.get("http", {}), reader)
    if reader.problems:
        raise ConfigError(source, reader.problems)
    return Settings(**values)


def _tables(raw: Mapping[str, Any], reader: Reader) -> dict[str, Any]:
    """Copy the known sections, refusing unknown ones and those of the wrong shape."""
    found: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in _SECTIONS:
            reader.unknown(name, name, _SECTIONS)
        elif name == "pbx":
            if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
                found[name] = [dict(row) for row in value]
            else:
                reader.problems.append("pbx: is no list of sections; allowed: [[pbx]], two brackets, for each PBX")
        elif isinstance(value, dict):
            found[name] = dict(value)
        else:
            reader.problems.append(f"{name}: is no section; allowed: [{name}] and its keys below")
    return found


def _override(tables: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Let the environment win over the file."""
    for variable, (section, key) in _VARIABLES.items():
        if (text := environ.get(variable)) is not None:
            value: Any = text
            if key == "api_keys":
                value = [part.strip() for part in text.split(",") if part.strip()]
            elif key == "port" and text.isascii() and text.isdigit():
                value = int(text)
            _put(tables.setdefault(section, {}), section, key, value)
    for n, row in enumerate(tables.get("pbx", []), 1):
        for key in (f"{whose}secret{file}" for whose in ("", "ari_", "control_") for file in ("", "_file")):
            if (text := environ.get(f"TRUNKLINE_PBX_{n}_{key.upper()}")) is not None:
                _put(row, "pbx", key, text)


def _put(table: dict[str, Any], section: str, key: str, value: Any) -> None:
    """Set a key, and drop the file's other way of giving the same secret."""
    for (owner, file_key), target in _FILE_KEYS.items():
        if owner == section and key in (file_key, target):
            table.pop(file_key, None)
            table.pop(target, None)
    table[key] = value


def _refuse_twins(pbxs: tuple[Pbx | None, ...], reader: Reader) -> None:
    """Refuse the same PBX twice: two trackers would write the same calls."""
    seen: dict[tuple[str, int], int] = {}
    for n, pbx in enumerate(pbxs, 1):
        if pbx is not None and pbx.enabled:
            first = seen.setdefault((pbx.host.lower(), pbx.ami_port), n)
            if first != n:
                reader.problems.append(f"pbx[{n}].host: is the same PBX as pbx[{first}]; allowed: each PBX once")


def _no_networks(key: str, texts: Sequence[str]) -> list[str]:
    """What is wrong with a list of networks."""
    problems = []
    for text in texts:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            allowed = 'allowed: a network such as "10.0.0.0/8" or "fd00::/8", no bits set behind its length'
            problems.append(f"{key}: {text!r} is no network; {allowed}")
    return problems


def _safe_url(text: str) -> bool:
    """Whether it is https, or http of this machine; with nothing behind its path."""
    try:
        url = urlsplit(text)
        _ = url.port  # parsed when asked for
    except ValueError:
        return False
    safe = url.scheme == "https" or (url.scheme == "http" and _loopback(url.hostname or ""))
    return safe and bool(url.hostname) and not url.query and not url.fragment and "@" not in text


def _bare_url(text: str) -> bool:
    return _is_url(text) and urlsplit(text).path in ("", "/")


def _is_url(text: str) -> bool:
    """Is it a web address, and nothing but scheme, host, port and path?"""
    try:
        url = urlsplit(text)
        _ = url.port  # parsed when asked for
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and not set(text) & set(" @?#")
    return plain and url.scheme in ("http", "https") and bool(url.hostname)


def _refuse_open_door(http: Http | None, auth: Auth | None, table: Mapping[str, Any], reader: Reader) -> None:
    """Where anybody is let in, only this machine may ask. `table`: what `http` was read from; None: not all of it."""
    host: Any = table.get("host") if http is None else http.host
    keyed = not {"api_keys", "api_key_file"}.isdisjoint(table) if http is None else bool(http.api_keys)
    if not isinstance(host, str) or any(problem.startswith("http.host:") for problem in reader.problems):
        return
    if auth is not None and not auth.required and not keyed and not _loopback(host):
        reader.problems.append(
            f"http.host: {host!r} can be reached from other machines and there is no API key; allowed: "
            'a loopback address such as "127.0.0.1", or any with api_keys, api_key_file, or auth.required'
        )


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
