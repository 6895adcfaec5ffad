"""Which shards a path or URL means, and what is said where it means none."""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import known_implementations

from lit_mbldm.data.shards.locate import open_shards
from lit_mbldm.data.shards.reading import Shard, Span, read_span, spans
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.data.shards.tar import CodecTag
from lit_mbldm.errors import InputError
from lit_mbldm.storage.urls import base_name, folder_of, in_folder, public

HTTP = "https://user:pass@host:8/a/b.tar?token=x#y"


@pytest.fixture
def bucket(code_shards: Path) -> Iterator[str]:
    """The folder of code shards in a file system that can list."""
    memory = fsspec.filesystem("memory")
    memory.put(str(code_shards), "/bucket/codes", recursive=True)
    yield "memory://bucket/codes"
    memory.rm("/bucket", recursive=True)


def test_parts_of_urls_and_paths() -> None:
    assert public(HTTP) == "https://host:8/a/b.tar"
    assert public("s3://key:sec/ret@bucket/x.tar") == "s3://key:sec/ret@bucket/x.tar"
    assert public("s3://key:secret@bucket/x-?.tar") == "s3://bucket/x-?.tar"
    assert public("simplecache::https://u:p@host/x.tar?sig=1") == "simplecache::https://host/x.tar"
    assert public("/data/a@b/what?x=1.tar") == "/data/a@b/what?x=1.tar"
    assert [base_name(url) for url in (HTTP, "s3://b/c/d.tar")] == ["b.tar", "d.tar"]
    assert in_folder(folder_of(HTTP), "c d.tar") == "https://user:pass@host:8/a/c%20d.tar?token=x#y"
    assert base_name("https://host/c%20d.tar") == "c d.tar"
    assert in_folder(folder_of("s3://b/c/d.tar"), "e.tar") == "s3://b/c/e.tar"
    assert in_folder(folder_of("c/d.tar"), "e.tar") == "c/e.tar"


FORMS = ["{}", "{}/", "{}/*.tar", "{}/codes-{{000000..000003}}.tar", "{}/codes-00000?.tar"]


@pytest.mark.parametrize("pattern", FORMS)
@pytest.mark.parametrize("manifest", [True, False])
def test_any_file_system_that_fsspec_knows(bucket, code_shards, pattern, manifest) -> None:
    if not manifest:
        fsspec.filesystem("memory").rm("/bucket/codes/manifest.json")
        (code_shards / "manifest.json").unlink()
    local, remote = open_shards(code_shards), open_shards(pattern.format(bucket))
    assert open_shards(pattern.format(code_shards)).shards == local.shards
    both = open_shards([bucket, str(code_shards)])
    assert [shard.start for shard in both.shards] == list(range(0, 80, 10))
    assert both.name == f"{bucket}, {code_shards}"
    assert [(s.name, s.count, s.tag, s.start) for s in remote.shards] == [
        (s.name, s.count, s.tag, s.start) for s in local.shards
    ]
    samples = [
        [sample for part in spans(found.shards, 5, 35) for sample in read_span(part, SkipLog().add)]
        for found in (local, remote)
    ]
    assert samples[0] == samples[1]
    assert [sample.index for sample in samples[1]] == list(range(5, 35))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("pipe:touch hacked", "Commands are not run"),
        (" PIPE:touch hacked", "Commands are not run"),
        ("{pipe:touch hacked,a}.tar", "No shards match"),
        ("foo://bucket/a.tar", "Protocol not known: foo"),
        ("memory://nothing/a-{0..2.tar", "brace pattern"),
        ("memory://nothing", "No shards match 'memory://nothing'"),
        ("memory://nothing/*.tar", "No shards match"),
        ("memory://nothing/a.tar", "does not exist"),
        ("https://user:secret@host/x*.tar?token=secret", "https://host/x"),
        ("zip://*.tar::memory://a.zip", "cannot be listed"),
        ("nowhere://bucket/*.tar", "Install no_such_package"),
        ("nothing/*.tar", "No shards match"),
        ("a-{00..03}.tar", "No shards match"),
        (".", "No shards match"),
        ("", "at least one path"),
    ],
)
def test_what_cannot_be_opened_is_said(pattern, message, tmp_path, monkeypatch) -> None:
    unknown = {"class": "no_such_package.FileSystem", "err": "Install no_such_package"}
    monkeypatch.setitem(known_implementations, "nowhere", unknown)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        open_shards(pattern)
    assert "secret" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_missing_shards_and_two_kinds_are_an_error(code_shards, image_shards) -> None:
    shutil.copy(code_shards / "codes-000000.tar", code_shards / "more.tar")
    assert open_shards(code_shards).count == 40
    assert open_shards(code_shards / "*.tar").count == 50
    with pytest.raises(InputError, match="one kind"):
        open_shards([str(image_shards), str(code_shards)])
    (image_shards / "images-000002.tar").unlink()
    with pytest.raises(InputError, match=r"images-000002\.tar"):
        open_shards(image_shards)


def test_samples_are_numbered_through_the_set_and_in_a_part_of_it(code_shards) -> None:
    tag = CodecTag("f", (1, 2, 2))
    a, b = Shard("a.tar", 3, tag, 0), Shard("s3://b/b.tar", 5, tag, 3)
    assert spans([b, a], 4, 7) == [Span(b, 4, 5), Span(a, 0, 2)]
    assert spans([a, b], 6, 10) == [Span(b, 3, 5), Span(a, 0, 2)]
    part = open_shards(code_shards).first_of_each(6)
    assert [(shard.start, shard.count) for shard in part.shards] == [(0, 1), (1, 2), (3, 1), (4, 2)]


@pytest.mark.parametrize("form", ["{}", "{}/*.tar"])
def test_shards_that_are_still_being_written_are_refused(image_shards, form) -> None:
    (image_shards / ".unfinished").mkdir()
    assert open_shards(form.format(image_shards)).count == 40
    (image_shards / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"still being written.*again until it is done"):
        open_shards(form.format(image_shards))


def test_further_images_of_a_sample_are_counted_and_named(tmp_path: Path) -> None:
    names = ["a.jpg", "a.json", "a.npy", "b.2021.0.png", "b.2021.1.PNG", "b.2021.2.png", "c.png"]
    shard = tmp_path / "photos.tar"
    with tarfile.open(shard, "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    with pytest.warns(UserWarning, match=r"2 members are left out, such as b\.2021\.1\.PNG"):
        shards = open_shards(shard)
    assert shards.count == 3
    skips = SkipLog()
    (span,) = spans(shards.shards, 0, 3)
    assert [sample.name[-2:] for sample in read_span(span, skips.add)] == ["/a", "/b", "/c"]
    assert not skips.entries
