"""Settings: what is accepted, and every refusal with its key and what is allowed."""

import copy
from pathlib import Path
from typing import Any

import pytest

from trunkline import config
from trunkline.config import ConfigError, Secret

GOOD: dict[str, Any] = {
    "database": {"url": "postgresql://u:hunter2@127.0.0.1/trunkline"},
    "pbx": [{"host": "127.0.0.1", "secret": "s3cret"}],
}


def _with(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(GOOD), **changes}


def _pbx(**changes: Any) -> dict[str, Any]:
    return _with(pbx=[{**GOOD["pbx"][0], **changes}])


def _problems(raw: dict[str, Any], **kwargs: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        config.check(raw, **kwargs)
    return raised.value.problems


def test_the_smallest_settings_get_defaults() -> None:
    settings = config.check(GOOD)
    assert settings.account.name == "default"
    assert settings.http.host == "127.0.0.1"
    assert settings.http.port == 8080
    assert settings.pbx[0].ami_port == 5038
    assert settings.pbx[0].trunks == ("PJSIP/trunk*",)
    assert settings.pbx[0].secret.reveal() == "s3cret"
    assert settings.log.format == "pretty"


def test_where_a_login_is_required_it_may_listen_anywhere() -> None:
    assert config.check(_with(http={"host": "0.0.0.0"}, auth={"required": True})).http.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("account", "pbxs", "expected"),
    [
        (None, [None], None),
        (None, ["GB"], "GB"),
        (None, ["GB", "GB"], "GB"),
        (None, ["GB", "DE"], None),
        (None, ["GB", None], None),
        ("FR", ["GB", "DE"], "FR"),
    ],
)
def test_numbers_are_of_the_accounts_country_or_that_of_all_its_pbxs(
    account: str | None, pbxs: list[str | None], expected: str | None
) -> None:
    hosts = [{"host": f"127.0.0.{n}", "secret": "s3cret", "region": region} for n, region in enumerate(pbxs, 1)]
    for host in hosts:
        if host["region"] is None:
            del host["region"]
    settings = config.check(_with(pbx=hosts, account={} if account is None else {"region": account}))
    assert settings.region == expected


def test_the_country_of_a_pbx_that_is_not_followed_does_not_count() -> None:
    there, off = (
        {"host": f"127.0.0.{n}", "secret": "s3cret", "region": region} for n, region in ((1, "GB"), (2, "DE"))
    )
    assert config.check(_with(pbx=[there, off])).region is None
    assert config.check(_with(pbx=[there, off | {"enabled": False}])).region == "GB"


def test_nothing_can_be_commanded_by_default() -> None:
    settings = config.check(GOOD)
    assert settings.pbx[0].control_secret is None
    assert settings.commands.destinations == ()
    environ = {"TRUNKLINE_PBX_1_CONTROL_SECRET": "c0ntrol"}
    secret = config.check(GOOD, environ=environ).pbx[0].control_secret
    assert secret is not None
    assert secret.reveal() == "c0ntrol"
    assert "c0ntrol" not in repr(config.check(GOOD, environ=environ))


def test_tls_moves_the_default_port_only() -> None:
    assert config.check(_pbx(tls="on")).pbx[0].ami_port == 5039
    assert config.check(_pbx(tls="on", port=5555)).pbx[0].ami_port == 5555


S3 = {"endpoint": "http://127.0.0.1:9000", "access_key": "a", "secret_key": "s"}
REFUSALS = [
    (_with(commands={"destinations": ["gb"]}), "commands.destinations: ['gb'] is not allowed here; allowed: a list of"),
    (_with(commands={"denied": ["+0"]}), "commands.denied: ['+0'] is not allowed here; allowed: a list of countries"),
    (_with(commands={"per_second": 0}), "commands.per_second: 0 is not allowed here; allowed: calls a second, 0.01"),
    (_with(commands={"per_day": 0}), "commands.per_day: 0 is not allowed here; allowed: calls in 24 hours"),
    (_pbx(control_secret="a\nb"), "pbx[1].control_secret: holds a control character or line end"),
    (_pbx(agents=["100.*"]), "pbx[1].agents: ['100.*'] is not allowed here; allowed: a list of patterns"),
    (_pbx(agent_endpoint="PJSIP/1001"), "pbx[1].agent_endpoint: 'PJSIP/1001' is not allowed here; allowed: a channel"),
    (_pbx(agent_endpoint="PJSIP/{extension}&PJSIP/trunk"), "pbx[1].agent_endpoint: 'PJSIP/{extension}&PJSIP/trunk'"),
    (_pbx(agent_context="agents,s,1"), "pbx[1].agent_context: 'agents,s,1' is not allowed here; allowed: the name of"),
    (_pbx(dial="{e164},30"), "pbx[1].dial: '{e164},30' is not allowed here; allowed: what is dialled"),
    (_with(recordings={"bucket": "calls"}), "recordings.endpoint: is missing"),
    (_with(recordings={**S3, "endpoint": "s3.example.com"}), "recordings.endpoint: is no URL of an S3"),
    (_with(recordings={**S3, "endpoint": "http://u:p@h"}), "recordings.endpoint: is no URL of an S3"),
    (_with(recordings={**S3, "access_key_file": "f"}), "recordings.access_key_file: give either this or access_key"),
    (
        _with(recordings={k: S3[k] for k in ("endpoint", "secret_key")}),
        "recordings.access_key or access_key_file: is missing",
    ),
    (
        _with(recordings={**S3, "bucket": "../x"}),
        "recordings.bucket: '../x' is not allowed here; allowed: a bucket's name",
    ),
    (_with(recordings={**S3, "at_once": 1}), "recordings.at_once: 1 is not allowed here; allowed: 2 to 64 uploads"),
    (_with(recordings={**S3, "retention_days": 0}), "recordings.retention_days: 0 is not allowed here"),
    (_with(webhooks={"allow_networks": ["10.0.0.1/8"]}), "webhooks.allow_networks: '10.0.0.1/8' is no network"),
    (_with(webhooks={"allow_networks": "10.0.0.0/8"}), "webhooks.allow_networks: '10.0.0.0/8' is not allowed here"),
    (_with(webhooks={"at_once": 2}), "webhooks.at_once: 2 is not allowed here; allowed: 4 to 1024 receivers"),
    (_with(webhooks={"keep_days": 0}), "webhooks.keep_days: 0 is not allowed here; allowed: days, 1 to 3650"),
    (_with(webhooks={"allow_htp": True}), "webhooks.allow_htp: there is no such key; did you mean allow_http?"),
    (_pbx(recordings="/nowhere"), "pbx[1].recordings: /nowhere is no directory"),
    (_pbx(recordings_seen_as="/x"), "pbx[1].recordings_seen_as: needs recordings"),
    (
        _with(databse={}),
        "databse: there is no such key; did you mean database? allowed: account, auth, commands, database, http,",
    ),
    (
        _with(zzz={}),
        "zzz: there is no such key; allowed: account, auth, commands, database, http, integrations, log, media, oidc,",
    ),
    (_with(log=3), "log: is no section; allowed: [log]"),
    (_with(pbx={"host": "x"}), "pbx: is no list of sections; allowed: [[pbx]]"),
    (_with(pbx=[]), "pbx: is no list of sections; allowed: [[pbx]]"),
    ({"database": GOOD["database"]}, "pbx: there is none; allowed: one [[pbx]] section"),
    ({"pbx": GOOD["pbx"]}, "database.url or url_file: is missing; allowed: postgresql://"),
    (_with(account={"name": ""}), "account.name: '' is not allowed here; allowed: text without control"),
    (_with(account={"name": "a\nb"}), "account.name: 'a\\nb' is not allowed here"),
    (_with(database={"url": "mysql://u@h/d"}), "database.url: does not begin with postgresql://; allowed: postgresql:"),
    (_with(database={"url": "postgresql://u@h:port/d"}), "database.url: is not a URL; allowed: postgresql://"),
    (_with(database={"url": "postgresql://u@h"}), "database.url: names no database; allowed: postgresql://"),
    (_with(database={"url": 7}), "database.url: a number is not allowed here; allowed: postgresql://"),
    (_with(database={"url": ""}), "database.url: an empty text is not allowed here; allowed: postgresql://"),
    (_pbx(ari_url="ftp://pbx", ari_secret="x"), "pbx[1].ari_url: is no URL of an ARI"),
    (_pbx(ari_url="http://u:p@pbx", ari_secret="x"), "pbx[1].ari_url: is no URL of an ARI"),
    (_pbx(ari_url="http://pbx/\r\nX: y", ari_secret="x"), "pbx[1].ari_url: is no URL of an ARI"),
    (_pbx(ari_url="http://pbx:8088"), "pbx[1].ari_secret or ari_secret_file: is missing; allowed: the password of"),
    (_pbx(ari_secret="x"), "pbx[1].ari_url: is missing, so ari_secret has no effect"),
    (_pbx(ari_user="a:b"), "pbx[1].ari_user: 'a:b' is not allowed here; allowed: a section's name of ari.conf"),
    (_pbx(ari_recordings="/nowhere"), "pbx[1].ari_recordings: /nowhere is no directory"),
    (_pbx(ari_recordings_seen_as="x"), "pbx[1].ari_recordings_seen_as: 'x' is not allowed here; allowed: the same dir"),
    (_pbx(prot=5038), "pbx[1].prot: there is no such key; did you mean port? allowed: agent_context,"),
    (_pbx(password="x"), "pbx[1].password: there is no such key; did you mean secret?"),
    (_pbx(host="a b"), "pbx[1].host: 'a b' is not allowed here; allowed: a host name or an IP address"),
    (_pbx(host="h\r\nAction: x"), "pbx[1].host: 'h\\r\\nAction: x' is not allowed here"),
    (_pbx(port=0), "pbx[1].port: 0 is not allowed here; allowed: a port, 1 to 65535"),
    (_pbx(port=65536), "pbx[1].port: 65536 is not allowed here; allowed: a port, 1 to 65535"),
    (_pbx(port="5038"), "pbx[1].port: '5038' is not allowed here; allowed: a port, 1 to 65535"),
    (_pbx(port=True), "pbx[1].port: True is not allowed here; allowed: a port, 1 to 65535"),
    (_pbx(username="a\r\nb"), "pbx[1].username: 'a\\r\\nb' is not allowed here; allowed: text without control"),
    (_pbx(secret="a\nb"), "pbx[1].secret: holds a control character or line end; allowed: text without"),
    (_pbx(secret=["x"]), "pbx[1].secret: a list is not allowed here; allowed: the AMI user's secret"),
    (_pbx(secret_file="x"), "pbx[1].secret_file: give either this or secret, not both"),
    (_with(pbx=[{"host": "h"}]), "pbx[1].secret or secret_file: is missing; allowed: the AMI user's secret"),
    (_pbx(tls="yes.pem"), 'pbx[1].tls: \'yes.pem\' is no file; allowed: "off", "on", or the path of a CA file'),
    (_pbx(systemname=""), "pbx[1].systemname: '' is not allowed here; allowed: text without control characters"),
    (_pbx(trunks=[]), "pbx[1].trunks: [] is not allowed here; allowed: a list of endpoint patterns"),
    (_pbx(trunks="PJSIP/*"), "pbx[1].trunks: 'PJSIP/*' is not allowed here; allowed: a list of endpoint patterns"),
    (_pbx(region="gb"), "pbx[1].region: 'gb' is no country; did you mean GB? allowed: an ISO 3166 country code"),
    (_with(account={"region": "de"}), "account.region: 'de' is no country; did you mean DE? allowed"),
    (_pbx(region="XX"), "pbx[1].region: 'XX' is no country; allowed: an ISO 3166 country code"),
    (_pbx(enabled="yes"), "pbx[1].enabled: 'yes' is not allowed here; allowed: true or false"),
    (_with(pbx=GOOD["pbx"] * 2), "pbx[2].host: is the same PBX as pbx[1]; allowed: each PBX once"),
    (
        _with(http={"host": "0.0.0.0"}),
        "http.host: '0.0.0.0' can be reached from other machines and there is no API key",
    ),
    (_with(http={"host": "pbx.example.com"}), "http.host: 'pbx.example.com' can be reached from other machines"),
    (_with(http={"rate_limit": -1}), "http.rate_limit: -1 is not allowed here; allowed: requests a second"),
    (_with(http={"allowed_origins": ["https://a/b"]}), "http.allowed_origins: 'https://a/b' is no origin"),
    (_with(auth={"secret": "x" * 31}), "auth.secret: is too short; allowed: 32 or more characters"),
    (_with(auth={"secret": 7}), "auth.secret: a number is not allowed here; allowed: a text of 32 or more"),
    (_with(auth={"required": 1}), "auth.required: 1 is not allowed here; allowed: true or false"),
    (_with(http={"port": -1}), "http.port: -1 is not allowed here; allowed: a port, 1 to 65535, or 0"),
    (_with(http={"api_keys": "one-key-of-20-letters"}), "http.api_keys: a text is not allowed here; allowed: a list"),
    (
        _with(http={"allowed_origins": ["https://crm.example.com/"]}),
        "http.allowed_origins: 'https://crm.example.com/'",
    ),
    (_with(http={"allowed_origins": ["*"]}), "http.allowed_origins: '*' is no origin; allowed: scheme and host alone"),
    (_with(http={"api_keys": ["short"]}), "http.api_keys: key 1 is too short or not printable; allowed: 16 or more"),
    (_with(http={"api_keys": ["x" * 20, "y y" * 9]}), "http.api_keys: key 2 is too short or not printable"),
    (_with(log={"level": "trace"}), 'log.level: \'trace\' is not allowed here; allowed: "debug", "info", "warning"'),
    (_with(log={"format": "xml"}), 'log.format: \'xml\' is not allowed here; allowed: "pretty", "json"'),
    (_with(spool={"path": ""}), "spool.path: '' is not allowed here; allowed: a directory that the daemon may"),
    (_with(spool={"path": "a\0b"}), "spool.path: 'a\\x00b' is not allowed here; allowed: a directory"),
]


@pytest.mark.parametrize(("raw", "problem"), REFUSALS, ids=[problem[:40] for _, problem in REFUSALS])
def test_refused_with_the_key_and_what_is_allowed(raw: dict[str, Any], problem: str) -> None:
    problems = _problems(raw)
    assert len(problems) == 1, problems
    assert problems[0].startswith(problem)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    raw = _with(pbx=[{"host": "a b", "port": 0}, {"hots": "x", "secret": "y"}], log={"level": 3}, htpt={})
    assert len(_problems(raw)) == 7  # host, port, no secret; hots, no host; level; htpt


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_without_a_key_loopback_is_listened_on(host: str) -> None:
    assert config.check(_with(http={"host": host})).http.host == host


def test_with_a_key_any_address_is_listened_on() -> None:
    assert config.check(_with(http={"host": "0.0.0.0", "api_keys": ["k" * 16]})).http.host == "0.0.0.0"


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    canary = "c4nary\n"
    (tmp_path / "keys").write_text("c4nary short\n")
    raw = _with(
        database={"url": "mysql://u:c4nary@h/d"},
        pbx=[{"host": "h", "secret": canary}, {"host": "h2", "secret": ["c4nary"]}, {"host": "h3", "passwd": "c4nary"}],
        http={"api_key_file": "keys"},
    )
    with pytest.raises(ConfigError) as raised:
        config.check(raw, base=tmp_path)
    assert len(raised.value.problems) == 6
    assert "c4nary" not in str(raised.value)
    good = config.check(_pbx(secret="c4nary"))
    assert "c4nary" not in repr(good)
    assert "hunter2" not in repr(good)
    assert "c4nary" not in f"{Secret('c4nary')}"


def test_secrets_come_from_files_beside_the_settings(tmp_path: Path) -> None:
    (tmp_path / "ami").write_text("from-file\n")
    (tmp_path / "url").write_text("postgresql://u:p@h/d\n")
    (tmp_path / "keys").write_text("# wallboard\nwallboard-key-0001\n\ncrm-key-0000000001\n")
    settings = config.check(
        {
            "database": {"url_file": "url"},
            "pbx": [{"host": "h", "secret_file": "ami"}],
            "http": {"api_key_file": "keys"},
        },
        base=tmp_path,
    )
    assert settings.pbx[0].secret == Secret("from-file")
    assert settings.database.url == Secret("postgresql://u:p@h/d")
    assert settings.http.api_keys == (Secret("wallboard-key-0001"), Secret("crm-key-0000000001"))
    assert settings.spool.path == tmp_path / "spool"


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    raw = {
        "database": {"url_file": "binary"},
        "pbx": [{"host": "h", "secret_file": "missing"}, {"host": "g", "secret_file": 3}],
        "http": {"api_key_file": "empty"},
    }
    assert _problems(raw, base=tmp_path) == [
        f"database.url_file: {tmp_path}/binary cannot be read: it is not UTF-8 text",
        f"http.api_key_file: {tmp_path}/empty is empty; allowed: one entry to a line",
        f"pbx[1].secret_file: {tmp_path}/missing cannot be read: No such file or directory",
        "pbx[2].secret_file: a number is not allowed here; allowed: a path",
    ]


def test_one_wrong_key_hides_no_other_problem_of_its_section() -> None:
    raw = {
        "database": {},
        "pbx": [{"host": "a b", "secret": "x\ny", "region": "UK", "recordings": 3, "recordings_seen_as": "/r"}],
        "http": {"port": "http", "host": "0.0.0.0"},
        "recordings": {"endpoint": "ftp://s3", "at_once": 0, "access_key": "", "secrt_key": "s"},
    }
    assert [problem.partition(":")[0] for problem in _problems(raw)] == [
        "database.url or url_file",
        "http.port",
        "recordings.at_once",
        "recordings.access_key",
        "recordings.secrt_key",
        "recordings.endpoint",
        "recordings.secret_key or secret_key_file",
        "pbx[1].host",
        "pbx[1].recordings",
        "pbx[1].secret",
        "pbx[1].region",
        "http.host",
    ]


def test_what_is_wrong_already_is_not_said_to_be_missing_too() -> None:
    raw = _with(http={"host": "0.0.0.0", "api_keys": 3}, recordings={"endpoint": 9, "access_key": "", "secret_key": 1})
    assert [problem.partition(":")[0] for problem in _problems(raw)] == [
        "http.api_keys",
        "recordings.endpoint",
        "recordings.access_key",
        "recordings.secret_key",
    ]


def test_what_is_allowed_in_recordings_is_said_of_each_key() -> None:
    storage = {"endpoint": "http://s3:9000", "access_key": "", "secret_key": "s"}
    days = {"retention_days_by_queue": {"support": 0, "sales": "ninety", "help": 30}}
    assert _problems(_with(recordings={**storage, **days})) == [
        "recordings.access_key: an empty text is not allowed here; allowed: the access key's id",
        "recordings.retention_days_by_queue.support: 0 is not allowed here; allowed: days, a whole number, 1 or more",
        "recordings.retention_days_by_queue.sales: 'ninety' is not allowed here; "
        "allowed: days, a whole number, 1 or more",
    ]
    assert _problems(_with(recordings={**storage, "access_key": "a", "retention_days_by_queue": 30})) == [
        "recordings.retention_days_by_queue: 30 is not allowed here; allowed: a section of QUEUE = days, each 1 or more"
    ]


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "ami").write_text("mounted")
    settings = config.check(
        _with(pbx=[{"host": "a", "secret": "x"}, {"host": "b", "secret": "y"}], http={"api_key_file": "gone"}),
        base=tmp_path,
        environ={
            "TRUNKLINE_DATABASE_URL": "postgresql://env:p@h/d",
            "TRUNKLINE_PBX_1_SECRET": "from-env",
            "TRUNKLINE_PBX_2_SECRET_FILE": "ami",
            "TRUNKLINE_HTTP_API_KEYS": f"{'k' * 16}, {'l' * 16}",
            "TRUNKLINE_HTTP_PORT": "9090",
            "TRUNKLINE_LOG_LEVEL": "debug",
        },
    )
    assert settings.database.url == Secret("postgresql://env:p@h/d")
    assert [pbx.secret.reveal() for pbx in settings.pbx] == ["from-env", "mounted"]
    assert settings.http.api_keys == (Secret("k" * 16), Secret("l" * 16))
    assert settings.http.port == 9090
    assert settings.log.level == "debug"


def test_the_environment_is_checked_like_the_file() -> None:
    problems = _problems(GOOD, environ={"TRUNKLINE_HTTP_PORT": "http", "TRUNKLINE_LOG_FORMAT": "xml"})
    assert [problem.partition(":")[0] for problem in problems] == ["http.port", "log.format"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "there is no such file; copy trunkline.example.toml to it, or name another by --config"),
        (b"[http\n", "it is not TOML: "),
        (b"\xff\xfe", "it is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    file = tmp_path / "trunkline.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"trunkline\.toml cannot be used, 1 problem") as raised:
        config.load(str(file), {})
    assert raised.value.problems[0].startswith(problem)


def test_a_directory_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it cannot be read: Is a directory"):
        config.load(None, {"TRUNKLINE_CONFIG": str(tmp_path)})


def test_the_example_loads_once_its_secrets_are_there(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "trunkline.example.toml"
    (tmp_path / "trunkline.toml").write_text(example.read_text("utf-8"), "utf-8")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/ami").write_text("s3cret\n")
    (tmp_path / "secrets/database_url").write_text("postgresql://u:p@h/d\n")
    settings = config.load(str(tmp_path / "trunkline.toml"), {})
    assert settings.pbx[0].host == "127.0.0.1"
    assert settings.pbx[0].region == "GB"
    text = example.read_text("utf-8")
    known = {field for section in config._SECTIONS.values() for field in section.__struct_fields__}
    assert [key for key in sorted(known) if key not in text] == []


def test_the_database_alone_needs_no_file_and_no_pbx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database = config.load_database(None, {"TRUNKLINE_DATABASE_URL": "postgresql://u:p@h/d"})
    assert database.url == Secret("postgresql://u:p@h/d")
    with pytest.raises(ConfigError, match="there is no such file"):
        config.load_database(None, {})
    with pytest.raises(ConfigError, match="there is no such file"):
        config.load_database("other.toml", {"TRUNKLINE_DATABASE_URL": "postgresql://u:p@h/d"})
    (tmp_path / "trunkline.toml").write_text('[database]\nurl = "postgresql://a:b@h/d"\n')
    assert config.load_database(None, {}).url == Secret("postgresql://a:b@h/d")
    (tmp_path / "trunkline.toml").write_text('[database]\nurl = "mysql://a:b@h/d"\n')
    with pytest.raises(ConfigError, match=r"database\.url: does not begin with postgresql"):
        config.load_database(None, {})
