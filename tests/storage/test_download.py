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

from lit_mbldm.data.sources.lsun_archives import BASE_URL, OBJECTS, SCENES, fetch_lsun
from lit_mbldm.errors import InputError
from lit_mbldm.storage.download import RefusedError, download

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ZIP = "church_outdoor_train_lmdb.zip"
PLACE = f"/scenes/{ZIP}"

pytestmark = pytest.mark.filterwarnings("ignore:.*trying again")


@pytest.fixture
def url(server: Any) -> str:
    (server.folder / "x").write_bytes(CONTENT)
    return f"{server.url}/x"


@pytest.fixture
def mirror(server: Any) -> str:
    """A mirror of LSUN, asked with a user, a password and a token."""
    zipped = server.folder / "a b" / "é" / "scenes" / ZIP
    zipped.parent.mkdir(parents=True)
    zipped.write_bytes(CONTENT)
    zipped.with_name(f"{ZIP}.sha256").write_text(f"{SHA256}  church.zip\n")
    return server.url.replace("://", "://me:hush%21@") + "/a b/é/?token=hush"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "church.zip"


def test_a_file_is_fetched_once(url: str, server: Any, path: Path) -> None:
    download(url, path, SHA256, len(CONTENT))
    assert path.read_bytes() == CONTENT
    asked = len(server.asked)
    download(url, path, SHA256)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert len(server.asked) == asked


@pytest.mark.parametrize("ranges", [True, False])
def test_dropped_connections_are_taken_up_where_they_broke(
    ranges: bool, url: str, server: Any, path: Path
) -> None:
    server.ranges = ranges
    cuts = [1_000_000, 1_000_000, 1_500_000]
    server.faults["x"] = iter([None, *(("cut", cut) for cut in cuts), 503])
    download(url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.asked_for("/x")[1:] == [None, *(f"bytes={cut}-" for cut in [*cuts, cuts[-1]])]


@pytest.mark.parametrize("etags", [True, False])
def test_a_file_that_changed_is_not_glued_to_the_old_one(
    etags: bool, url: str, server: Any, path: Path
) -> None:
    server.etags = etags
    changed = CONTENT[::-1]

    def fail_and_change() -> Any:
        yield from (None, ("cut", 1_000_000))
        (server.folder / "x").write_bytes(changed)
        yield None

    server.faults["x"] = fail_and_change()
    with pytest.raises(InputError, match="changed on the server" if etags else "was removed"):
        download(url, path, SHA256)
    if etags:  # what came of the old file is found out at the end
        with pytest.raises(InputError, match="is not the file and was removed"):
            download(url, path, hashlib.sha256(changed).hexdigest())
    download(url, path, hashlib.sha256(changed).hexdigest())
    assert path.read_bytes() == changed


def test_another_file_in_its_place_is_left_alone(url: str, path: Path) -> None:
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"church\.zip is another file"):
        download(url, path, SHA256)
    assert path.read_bytes() == b"mine"


def test_lasting_faults_are_told(url: str, server: Any, path: Path) -> None:
    server.faults["x"] = itertools.chain([None, ("cut", 1_000_000)], itertools.repeat(503))
    with pytest.raises(InputError, match=r"503, 4 times. What has come stays: run the same"):
        download(url, path, SHA256)
    server.faults.clear()
    download(url, path, SHA256)
    assert server.asked_for("/x")[-1] == "bytes=1000000-"
    with pytest.raises(InputError, match="3000000 bytes, expected 7: it is another file"):
        download(url, path.with_name("b"), SHA256, 7)


def test_what_does_not_fit_on_the_disk_is_not_begun(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil._ntuple_diskusage(9, 9, 2_999_999)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    with pytest.raises(InputError, match=r"needs 3,000,000 bytes .* 2,999,999 are free"):
        download(url, path, SHA256)


SCRIPT = """
import sys
from pathlib import Path
from lit_mbldm.storage.download import download
url, path, sha256, limit = sys.argv[1:]
if int(limit):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
download(url, Path(path), sha256)
"""


def start(url: str, path: Path, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, url, str(path), SHA256, str(limit)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_killed_download_goes_on_and_two_do_not_interfere(
    url: str, server: Any, path: Path
) -> None:
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
    process = start(url, path, limit=1_000_000)
    _, errors = process.communicate()
    assert process.returncode
    assert "make room and run the same command again" in errors
    download(url, path, SHA256)
    assert server.asked_for("/x")[-1] == "bytes=1000000-"


def test_published_sha256_hold_for_a_mirror_unless_it_has_its_own(
    mirror: str, server: Any, tmp_path: Path
) -> None:
    path = fetch_lsun("church_outdoor", "train", mirror, tmp_path)
    assert path == tmp_path / ZIP
    assert path.read_bytes() == CONTENT
    (server.folder / f"a b/é/scenes/{ZIP}.sha256").unlink()
    path.unlink()
    with pytest.raises(InputError, match="3000000 bytes, expected 2448463466"):
        fetch_lsun("church_outdoor", "train", mirror, tmp_path)


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
    category: str, split: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fetch_lsun(category, split, BASE_URL, tmp_path)


def test_a_mirrors_user_and_query_are_used(
    mirror: str, server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults[f"{ZIP}.sha256"] = iter([503, 500])
    server.faults[ZIP] = iter([None, ("cut", 1_000_000)])
    assert fetch_lsun("church_outdoor", "train", mirror, tmp_path).read_bytes() == CONTENT
    user = "Basic " + base64.b64encode(b"me:hush!").decode()
    place = f"/a%20b/%C3%A9{PLACE}"
    assert {(path, user) for path, _, user in server.asked} == {
        (f"{place}.sha256?token=hush", user),
        (f"{place}?token=hush", user),
    }
    assert "hush" not in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["404", "503", "another size", "sha256", "no sha256", "no room"])
def test_a_mirrors_secrets_are_in_no_message(
    fault: str, mirror: str, server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    told = server.folder / f"a b/é/scenes/{ZIP}.sha256"
    if fault in ("404", "503"):
        server.faults[ZIP] = itertools.repeat(int(fault))
    if fault == "another size":
        told.unlink()
    if fault in ("sha256", "no sha256"):
        told.write_text({"sha256": "0" * 64, "no sha256": "<html>"}[fault])
    if fault == "no room":
        monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(InputError, match=r"http://127.0.0.1:\d+/a b/é/scenes/church") as error:
        fetch_lsun("church_outdoor", "train", mirror, tmp_path)
    trace = "".join(traceback.format_exception(error.value, chain=False))
    assert "hush" not in str(error.value) + capsys.readouterr().err + trace
    assert isinstance(error.value, RefusedError) == (fault == "404")
    assert ("bedroom" in str(error.value)) == (fault == "404")


@pytest.mark.parametrize(
    "url",
    [
        *("http://", "http://[::1/x", "http://me:hush@host:port/x", "http:///x", "", "host/lsun"),
        "file:///etc",
    ],
)
def test_what_is_no_base_address_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="http:// or https:// and a host, got") as error:
        fetch_lsun("cat", "train", url, tmp_path)
    assert "hush" not in str(error.value)


def test_the_table_of_published_files_is_whole() -> None:
    rows = [line.split() for line in (SCENES + OBJECTS).split("\n") if line]
    assert len(rows) == len({row[0] for row in rows}) == len({row[2] for row in rows}) == 40
    assert all(len(bytes.fromhex(row[2])) == 32 and int(row[1]) > 4_000_000 for row in rows)
