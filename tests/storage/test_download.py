import base64
import hashlib
import itertools
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from lit_mbldm.data.sources import lsun_archives
from lit_mbldm.data.sources.lsun_archives import BASE_URL, TABLE, fetch_lsun
from lit_mbldm.errors import InputError
from lit_mbldm.storage.download import download

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ZIP = "church_outdoor_train_lmdb.zip"
PLACE = f"/a b/é/scenes/{ZIP}"

pytestmark = pytest.mark.filterwarnings("ignore:.*trying again")


@pytest.fixture
def url(server: Any) -> str:
    (server.folder / "x").write_bytes(CONTENT)
    return f"{server.url}/x"


@pytest.fixture
def mirror(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A mirror of LSUN, asked with a user, a password and a token."""
    zipped = Path(f"{server.folder}{PLACE}")
    zipped.parent.mkdir(parents=True)
    zipped.write_bytes(CONTENT)
    table = tmp_path / "lsun.txt"
    table.write_text(f"scenes/{ZIP} {len(CONTENT)} {SHA256}\n")
    monkeypatch.setattr(lsun_archives, "TABLE", table)
    return server.url.replace("://", "://me:hush%21@") + "/a b/é/?token=hush"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "church.zip"


@pytest.mark.parametrize("ranges", [True, False])
def test_dropped_connections_are_taken_up_where_they_broke(ranges, url, server, path) -> None:
    server.ranges = ranges
    cuts = [1_000_000, 1_000_000, 1_500_000]
    server.faults["x"] = iter([None, *(("cut", cut) for cut in cuts), 503])
    download(url, path, SHA256, len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    asked = [None, None, *(f"bytes={cut}-" for cut in [*cuts, cuts[-1]])]
    assert server.asked_for("/x") == asked
    download(url, path, SHA256)
    assert server.asked_for("/x") == asked


@pytest.mark.parametrize(("etags", "ranges"), [(True, True), (True, False), (False, True)])
def test_a_file_that_changed_is_not_glued_to_the_old_one(etags, ranges, url, server, path) -> None:
    server.etags, server.ranges = etags, ranges
    changed = CONTENT[::-1]

    def fail_and_change() -> Any:
        yield from (None, ("cut", 1_000_000))
        (server.folder / "x").write_bytes(changed)
        yield None

    server.faults["x"] = fail_and_change()
    with pytest.raises((InputError, OSError), match="on the server" if etags else "was removed"):
        download(url, path, SHA256)
    if etags:  # what came of the old file is found out at the end
        with pytest.raises(InputError, match="is not the file and was removed"):
            download(url, path, hashlib.sha256(changed).hexdigest())
    download(url, path, hashlib.sha256(changed).hexdigest())
    assert path.read_bytes() == changed


def test_lasting_faults_are_told(url: str, server: Any, path: Path) -> None:
    server.faults["x"] = itertools.chain([None, ("cut", 1_000_000)], itertools.repeat(503))
    with pytest.raises(OSError, match=r"503, 4 times. What has come stays: run the same"):
        download(url, path, SHA256)
    server.faults.clear()
    download(url, path, SHA256)
    assert server.asked_for("/x")[-1] == "bytes=1000000-"
    with pytest.raises(InputError, match="3000000 bytes, expected 7: it is another file"):
        download(url, path.with_name("b"), SHA256, 7)
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"church\.zip is another file"):
        download(url, path, SHA256)
    assert path.read_bytes() == b"mine"


SCRIPT = """
import resource, sys
from pathlib import Path
from lit_mbldm.storage.download import download
url, path, sha256, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
download(url, Path(path), sha256)
"""


def start(url: str, path: Path, limit: int = 1 << 30) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, url, str(path), SHA256, str(limit)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_killed_download_goes_on_and_two_do_not_interfere(url, server, path) -> None:
    server.bytes_a_second = 3e6
    data = path.with_name("church.zip.part") / "data"
    for size in (200_000, 1_500_000):
        process = start(url, path)
        while not data.exists() or data.stat().st_size < size:
            assert process.poll() is None
            time.sleep(0.005)
        with pytest.raises(InputError, match="Another process"):
            download(url, path, SHA256)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    download(url, path, SHA256)
    assert path.read_bytes() == CONTENT
    starts = [int(part[6:-1]) for part in server.asked_for("/x") if part]
    assert starts[0] >= 200_000
    assert starts[-1] >= 1_500_000


def test_a_full_disk_keeps_what_has_come(url: str, server: Any, path: Path) -> None:
    _, errors = start(url, path, limit=1_000_000).communicate()
    assert "make room and run the same command again" in errors
    download(url, path, SHA256)
    assert server.asked_for("/x")[-1] == "bytes=1000000-"


def test_a_mirrors_user_and_query_are_used(mirror: str, server: Any, tmp_path: Path) -> None:
    server.faults[ZIP] = iter([None, ("cut", 1_000_000), 503])
    assert fetch_lsun("church_outdoor", "train", mirror, tmp_path) == tmp_path / ZIP
    assert (tmp_path / ZIP).read_bytes() == CONTENT
    user = "Basic " + base64.b64encode(b"me:hush!").decode()
    asked = {(path, user) for path, _, user in server.asked}
    assert asked == {(f"/a%20b/%C3%A9/scenes/{ZIP}?token=hush", user)}


FAULTS = {
    404: "Name a mirror of LSUN with --base-url, or a category it has: church_outdoor",
    503: "HTTP 503, 4 times",
    "short": "2999999 bytes, expected 3000000",
    "other": "was removed: its sha256 is ",
    "no room": "needs 3,000,000 bytes .* 0 are free",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_mirror_are_told(fault, mirror, server, tmp_path, capsys, monkeypatch) -> None:
    if isinstance(fault, int):
        server.faults[ZIP] = itertools.repeat(fault)
    elif fault == "no room":
        monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    else:
        Path(f"{server.folder}{PLACE}").write_bytes(CONTENT[fault == "short" :][::-1])
    with pytest.raises((InputError, OSError), match=FAULTS[fault]) as error:
        fetch_lsun("church_outdoor", "train", mirror, tmp_path)
    assert f"{server.url}/a b/é/scenes/church" in str(error.value)
    trace = "".join(traceback.format_exception(error.value, chain=False))
    assert "hush" not in str(error.value) + capsys.readouterr().err + trace


@pytest.mark.parametrize(
    ("category", "split", "url", "message"),
    [
        ("churhc_outdoor", "train", BASE_URL, "Did you mean church_outdoor"),
        ("zebra", "train", BASE_URL, "Expected one of bedroom"),
        ("cat", "val", BASE_URL, "cat has no split 'val'"),
        ("cat", "train", "http:///x?hush", "http:// or https:// and a host, got 'http:///x'"),
        ("cat", "train", "host/lsun", "http:// or https:// and a host, got"),
        ("cat", "train", "http://me:hush@host:port/x", "http://host:port/x.*nonnumeric port"),
    ],
)
def test_what_lsun_does_not_have_is_refused(category, split, url, message, tmp_path) -> None:
    with pytest.raises((InputError, OSError), match=message) as error:
        fetch_lsun(category, split, url, tmp_path)
    assert "hush" not in str(error.value)


def test_the_table_of_published_files_is_whole() -> None:
    rows = [line.split() for line in TABLE.read_text().splitlines()]
    assert len(rows) == len({row[0] for row in rows}) == len({row[2] for row in rows}) == 40
    assert all(len(bytes.fromhex(row[2])) == 32 and int(row[1]) > 4_000_000 for row in rows)
