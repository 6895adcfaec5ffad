import base64
import contextlib
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from lit_mbldm.data.sources.lsun_archives import BASE_URL, OBJECTS, SCENES, fetch_lsun
from lit_mbldm.errors import InputError
from lit_mbldm.storage.checksum import Checksum
from lit_mbldm.storage.download import ATTEMPTS, RefusedError, download

CONTENT = random.Random(0).randbytes(3_000_000)
PUBLISHED = "/scenes/church_outdoor_train_lmdb.zip"


@dataclass
class Behaviour:
    """What the server holds and how it fails; requests are kept for the tests to look at."""

    content: bytes = CONTENT
    ranges: bool = True
    etag: str | None = '"1"'
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    bytes_a_second: float = float("inf")
    sha256: str | None = None
    asked: list[str | None] = field(default_factory=list)
    checksum_statuses: list[int] = field(default_factory=list)
    paths: list[tuple[str, str | None]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    def __init__(self, behaviour: Behaviour, *args: object) -> None:
        self.behaviour = behaviour
        super().__init__(*args)  # type: ignore[arg-type]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        b = self.behaviour
        b.paths.append((self.path, self.headers.get("Authorization")))
        if urlsplit(self.path).path.endswith(".sha256"):
            self.answer_checksum()
            return
        b.asked.append(self.headers.get("Range"))
        if b.statuses and (status := b.statuses.pop(0)) != 200:
            self.send_error(status)
            return
        start = self.start()
        self.send_response(206 if start is not None else 200)
        self.send_header("Content-Length", str(len(b.content) - (start or 0)))
        if start is not None:
            end = f"{len(b.content) - 1}/{len(b.content)}"
            self.send_header("Content-Range", f"bytes {start}-{end}")
        if b.etag:
            self.send_header("ETag", b.etag)
        self.end_headers()
        self.send(b.content[start or 0 :][: b.cut_after.pop(0) if b.cut_after else None])

    def start(self) -> int | None:
        asked, same = self.headers.get("Range"), self.headers.get("If-Range")
        if not asked or not self.behaviour.ranges or same not in (None, self.behaviour.etag):
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def send(self, body: bytes) -> None:
        step = 100_000
        with contextlib.suppress(ConnectionError):
            for begin in range(0, len(body), step):
                self.wfile.write(body[begin : begin + step])
                time.sleep(step / self.behaviour.bytes_a_second)

    def answer_checksum(self) -> None:
        statuses = self.behaviour.checksum_statuses
        if statuses or self.behaviour.sha256 is None:
            self.send_error(statuses.pop(0) if statuses else 404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.behaviour.sha256}  church.zip\n".encode())


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def base_url(behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("lit_mbldm.storage.download.FIRST_PAUSE_SECONDS", 0.001)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, behaviour)) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "church.zip"


def checksum(content: bytes = CONTENT) -> Checksum:
    return Checksum(hashlib.sha256(content).hexdigest(), len(content))


def test_a_file_is_fetched_once(base_url: str, behaviour: Behaviour, path: Path) -> None:
    for _ in range(2):
        download(f"{base_url}/x", path, checksum())
        assert path.read_bytes() == CONTENT
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert behaviour.asked == [None]


def test_dropped_connections_are_taken_up_where_they_broke(
    base_url: str, behaviour: Behaviour, path: Path
) -> None:
    behaviour.cut_after = [1_000_000, 0, 500_000]
    download(f"{base_url}/x", path, checksum())
    assert path.read_bytes() == CONTENT
    assert behaviour.asked == [None, *[f"bytes={n}-" for n in (1_000_000, 1_000_000, 1_500_000)]]


def test_without_ranges_a_broken_file_is_fetched_from_its_start(
    base_url: str, behaviour: Behaviour, path: Path
) -> None:
    behaviour.ranges = False
    behaviour.cut_after = [1_000_000]
    download(f"{base_url}/x", path, checksum())
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"2"', None], ids=["by its tag", "by the checksum alone"])
def test_a_file_that_changed_meanwhile_is_not_glued_to_the_old_one(
    etag: str | None, base_url: str, behaviour: Behaviour, path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("lit_mbldm.storage.download.ATTEMPTS", 1)
    behaviour.etag = behaviour.etag if etag else None
    behaviour.cut_after = [1_000_000]
    with pytest.raises(InputError, match=r"1,000,000 bytes .* stay"):
        download(f"{base_url}/x", path, checksum())
    behaviour.content, behaviour.etag = CONTENT[::-1], etag
    if etag is None:
        with pytest.raises(InputError, match="not the expected file and was removed"):
            download(f"{base_url}/x", path, checksum(behaviour.content))
    download(f"{base_url}/x", path, checksum(behaviour.content))
    assert path.read_bytes() == behaviour.content


def test_a_file_without_the_wanted_range_is_fetched_from_its_start(
    base_url: str, behaviour: Behaviour, path: Path
) -> None:
    behaviour.cut_after = [1_000_000]
    behaviour.statuses = [200, 416]
    download(f"{base_url}/x", path, checksum())
    assert behaviour.asked == [None, "bytes=1000000-", None]
    assert path.read_bytes() == CONTENT


def test_wrong_bytes_are_removed_and_the_next_start_begins_anew(
    base_url: str, behaviour: Behaviour, path: Path
) -> None:
    flipped = bytearray(CONTENT)
    flipped[1000] ^= 1
    behaviour.content = bytes(flipped)
    with pytest.raises(InputError, match=r"sha256 is .* expected"):
        download(f"{base_url}/x", path, checksum())
    assert list(path.parent.iterdir()) == []
    behaviour.content = CONTENT
    download(f"{base_url}/x", path, checksum())
    assert path.read_bytes() == CONTENT


def test_another_file_in_its_place_is_left_alone(base_url: str, path: Path) -> None:
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"church\.zip is another file"):
        download(f"{base_url}/x", path, checksum())
    assert path.read_bytes() == b"mine"


def test_passing_errors_are_waited_out_and_lasting_ones_told(
    base_url: str, behaviour: Behaviour, path: Path
) -> None:
    behaviour.statuses = [503] * ATTEMPTS
    with pytest.raises(InputError, match=rf"failed {ATTEMPTS} times .*503"):
        download(f"{base_url}/x", path, checksum())
    behaviour.statuses = [503] * (ATTEMPTS - 1)
    download(f"{base_url}/x", path, checksum())
    assert path.read_bytes() == CONTENT


def test_what_does_not_fit_on_the_disk_is_not_begun(
    base_url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 2_999_999

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(InputError, match=r"needs 3,000,000 more bytes .* 2,999,999 are free"):
        download(f"{base_url}/x", path, checksum())


def test_a_second_process_does_not_interfere(
    base_url: str, behaviour: Behaviour, path: Path
) -> None:
    behaviour.bytes_a_second = 5e6
    first = Thread(target=download, args=(f"{base_url}/x", path, checksum()))
    first.start()
    while not (path.with_name("church.zip.part") / "data").exists():
        time.sleep(0.01)
    with pytest.raises(InputError, match="Another process"):
        download(f"{base_url}/x", path, checksum())
    first.join()
    assert path.read_bytes() == CONTENT


SCRIPT = """
import sys
from pathlib import Path
from lit_mbldm.storage.checksum import Checksum
from lit_mbldm.storage.download import download
url, path, sha256, limit = sys.argv[1:]
if int(limit):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
download(url, Path(path), Checksum(sha256))
"""


def start(base_url: str, path: Path, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, f"{base_url}/x", str(path), checksum().sha256]
    return subprocess.Popen([*command, str(limit)], stderr=subprocess.PIPE, text=True)


def test_a_killed_download_goes_on(base_url: str, behaviour: Behaviour, path: Path) -> None:
    behaviour.bytes_a_second = 6e6
    data = path.with_name("church.zip.part") / "data"
    for size in (200_000, 1_500_000):
        process = start(base_url, path)
        while not data.exists() or data.stat().st_size < size:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    download(f"{base_url}/x", path, checksum())
    assert path.read_bytes() == CONTENT
    starts = [int((asked or "bytes=0-")[6:-1]) for asked in behaviour.asked]
    assert starts[0] == 0
    assert starts[1] >= 200_000
    assert starts[2] >= 1_500_000


def test_a_full_disk_keeps_what_has_come(base_url: str, behaviour: Behaviour, path: Path) -> None:
    process = start(base_url, path, limit=1_000_000)
    _, errors = process.communicate()
    assert process.returncode
    assert "make room and run the same command again" in errors
    download(f"{base_url}/x", path, checksum())
    assert behaviour.asked == [None, "bytes=1000000-"]


def test_published_checksums_hold_for_a_mirror_unless_it_has_its_own(
    base_url: str, behaviour: Behaviour, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="3000000 bytes, expected 2448463466"):
        fetch_lsun("church_outdoor", "train", base_url, tmp_path)
    behaviour.sha256 = checksum().sha256
    path = fetch_lsun("church_outdoor", "train", base_url, tmp_path)
    assert path == tmp_path / "church_outdoor_train_lmdb.zip"
    assert path.read_bytes() == CONTENT
    behaviour.sha256 = "<html>"
    with pytest.raises(InputError, match="Expected the sha256"):
        fetch_lsun("church_outdoor", "train", base_url, tmp_path)


def test_a_missing_file_names_its_url_and_the_categories(
    base_url: str, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.statuses = [404]
    with pytest.raises(RefusedError, match=f"{base_url}{PUBLISHED} answers 404") as error:
        fetch_lsun("church_outdoor", "train", base_url, tmp_path)
    assert "bedroom" in str(error.value)
    assert "tv-monitor" in str(error.value)


@pytest.mark.parametrize(
    ("category", "split", "message"),
    [
        ("church", "train", "Did you mean church_outdoor"),
        ("churhc_outdoor", "train", "Did you mean church_outdoor"),
        ("zebra", "train", "Expected one of bedroom"),
        ("cat", "val", "cat has no split 'val'"),
    ],
)
def test_unknown_categories_and_splits_are_refused(
    category: str, split: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fetch_lsun(category, split, BASE_URL, tmp_path)  # type: ignore[arg-type]


def test_other_addresses_than_http_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="http:// or https://"):
        fetch_lsun("cat", "train", "file:///etc", tmp_path)


def with_secrets(base_url: str) -> str:
    return base_url.replace("://", "://me:hush%21@") + "/a b/é/?token=hush"


def test_a_mirrors_user_and_query_are_used(
    base_url: str, behaviour: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviour.sha256 = checksum().sha256
    behaviour.cut_after = [1_000_000]
    path = fetch_lsun("church_outdoor", "train", with_secrets(base_url), tmp_path)
    assert path.read_bytes() == CONTENT
    user = "Basic " + base64.b64encode(b"me:hush!").decode()
    place = f"/a%20b/%C3%A9{PUBLISHED}"
    assert behaviour.paths == [
        (f"{place}.sha256?token=hush", user),
        (f"{place}?token=hush", user),
        (f"{place}?token=hush", user),
    ]
    assert "hush" not in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["404", "503", "another size", "sha256", "no sha256", "no room"])
def test_a_mirrors_secrets_are_in_no_message(
    fault: str, base_url: str, behaviour: Behaviour, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if fault in ("404", "503"):
        behaviour.statuses = [int(fault)] * ATTEMPTS
    if fault != "another size":
        behaviour.sha256 = {"sha256": "0" * 64, "no sha256": "<html>"}.get(fault, checksum().sha256)
    if fault == "no room":
        monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(InputError, match=r"http://127.0.0.1:\d+/a b/é/scenes/church") as error:
        fetch_lsun("church_outdoor", "train", with_secrets(base_url), tmp_path)
    trace = "".join(traceback.format_exception(error.value, chain=False))
    assert "hush" not in str(error.value) + capsys.readouterr().err + trace


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1/x", "http://me:hush@host:port/x", "http:///x", "", "host/lsun"]
)
def test_what_is_no_base_address_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="http:// or https:// and a host, got") as error:
        fetch_lsun("cat", "train", url, tmp_path)
    assert "hush" not in str(error.value)


def test_a_mirrors_checksum_is_asked_for_again(
    base_url: str, behaviour: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_mbldm.storage.faults.PAUSES", (0.001, 0.001))
    behaviour.sha256 = checksum().sha256
    behaviour.checksum_statuses = [503, 500]
    path = fetch_lsun("church_outdoor", "train", base_url, tmp_path)
    assert path.read_bytes() == CONTENT


def test_the_table_of_published_files_is_whole() -> None:
    rows = [line.split() for line in (SCENES + OBJECTS).split("\n") if line]
    assert len(rows) == len({row[0] for row in rows}) == len({row[2] for row in rows}) == 40
    assert all(len(bytes.fromhex(row[2])) == 32 and int(row[1]) > 4_000_000 for row in rows)
