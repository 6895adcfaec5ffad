import io
import itertools
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import read_all
from conftest import SIZE, picture

from lit_mbldm.cli import main
from lit_mbldm.data.loading.datamodule import ShardDataModule
from lit_mbldm.data.prepare.convert import Jpeg, to_jpeg
from lit_mbldm.data.prepare.encode import encode_shards
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.labels import common_classes
from lit_mbldm.data.shards.locate import open_shards
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.data.sources.archives import open_source
from lit_mbldm.errors import InputError

NAMES = ["ant", "bee", "cat"]
COUNT = 24


def png(number: int) -> bytes:
    """A picture whose brightness tells its number."""
    stream = io.BytesIO()
    picture(5 * number).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """24 pictures, number n in the folder of class n mod 3, under one top folder."""
    for number in range(COUNT):
        path = tmp_path / "photos" / "top" / NAMES[number % 3] / "more" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path / "photos"


def zipped(photos: Path) -> Path:
    with zipfile.ZipFile(photos.with_suffix(".zip"), "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, path.relative_to(photos))
    return photos.with_suffix(".zip")


def tarred(photos: Path) -> Path:
    with tarfile.open(photos.with_suffix(".tar"), "w") as archive:
        archive.add(photos / "top", "top")
    return photos.with_suffix(".tar")


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def cls_last(number: int) -> dict[str, bytes]:
    return {f"{number}.png": png(number), f"{number}.cls": b"%d\n" % (number % 3)}


def cls_first(number: int) -> dict[str, bytes]:
    return dict(reversed(cls_last(number).items()))


def json_object(number: int) -> dict[str, bytes]:
    label = json.dumps({"label": number % 3, "caption": "x"}).encode()
    return {f"{number}.png": png(number), f"{number}.json": label}


def json_number(number: int) -> dict[str, bytes]:
    return {f"{number}.json": b"%d" % (number % 3), f"{number}.png": png(number)}


Form = Callable[[int], dict[str, bytes]]
FORMS: list[Form] = [cls_last, cls_first, json_object, json_number]


@pytest.fixture(params=FORMS)
def tars(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The 24 pictures in two tars with labels."""
    for shard in range(2):
        members: dict[str, bytes] = {}
        for number in range(12 * shard, 12 * shard + 12):
            members |= request.param(number)
        write_tar(tmp_path / "tars" / f"{shard}.tar", members)
    return tmp_path / "tars"


def checked(batches: Any, flips: bool = False) -> int:
    """How many samples have the label that their brightness tells."""
    count, flipped = 0, 0
    for batch in batches:
        assert batch["label"].dtype == torch.int64
        shown = batch["codes"][:, 0] if "codes" in batch else batch["images"][:, 0]
        left, right = shown[:, 0, 0].int(), shown[:, 0, -1].int()
        numbers = (torch.minimum(left, right) / 5).round().int()
        assert torch.equal(batch["label"], (numbers % 3).long())
        count, flipped = count + len(numbers), flipped + int((left > right).sum())
    assert (flipped > 0) == flips
    return count


def module(train: Path, **options: Any) -> ShardDataModule:
    found = ShardDataModule(str(train), batch_size=4, **options)
    found.setup("fit")
    return found


@pytest.mark.parametrize("pack", [lambda photos: photos, zipped, tarred])
def test_folders_become_labels_that_every_way_of_loading_gives(
    photos, tmp_path, codec, pack
) -> None:
    images, codes = tmp_path / "images", tmp_path / "codes"
    manifest = write_shards(pack(photos), images, SIZE, val=0.3, shard_size=5, workers=1)
    assert manifest.classes == Manifest.read(images / "val").classes == NAMES
    assert encode_shards(images, codes, codec).classes == NAMES
    for folder in (images, codes):
        for options in ({}, {"num_workers": 2}, {"in_memory": True}):
            if folder == images and "in_memory" in options:
                continue
            data = module(folder, **options)
            assert data.class_names == NAMES
            batches = [batch for _ in range(3) for batch in data.train_dataloader()]
            assert checked(batches, flips=True) == 3 * (manifest.count // 4 * 4)
            assert checked(data.val_dataloader()) == COUNT - manifest.count
    assert checked(module(codes).training_set().batches) == manifest.count


def test_an_interrupted_run_is_continued_with_the_same_labels_only(
    photos, tmp_path, contents, monkeypatch
) -> None:
    calls, options = itertools.count(), {"shard_size": 5, "workers": 1}

    def interrupted(*arguments: Any) -> Jpeg:
        if next(calls) == 12:
            raise KeyboardInterrupt
        return to_jpeg(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("lit_mbldm.data.prepare.convert.to_jpeg", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_shards(photos, tmp_path / "a", SIZE, **options)
    with pytest.raises(InputError, match="begun with another classes"):
        write_shards(photos, tmp_path / "a", SIZE, labels=False, **options)
    write_shards(photos, tmp_path / "a", SIZE, **options)
    write_shards(photos, tmp_path / "b", SIZE, **options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    with pytest.raises(InputError, match="other settings"):
        write_shards(photos, tmp_path / "a", SIZE, labels=False, **options)


def test_trees_without_classes_have_no_labels(photos, tmp_path, codec, capsys) -> None:
    main(["shards", str(photos), str(tmp_path / "off"), "--size", "16", "--no-labels"])
    assert "Labels" not in capsys.readouterr().out
    main(["shards", str(photos), str(tmp_path / "on"), "--size", "16"])
    assert "Labels of 3 classes: ant, bee, cat" in capsys.readouterr().out
    write_shards(photos / "top" / "ant", tmp_path / "one", SIZE, workers=1)
    (photos / "top" / "beside.png").write_bytes(png(0))
    write_shards(photos, tmp_path / "beside", SIZE, workers=1)
    for name in ("off", "one", "beside"):
        assert Manifest.read(tmp_path / name).classes is None
        data = module(tmp_path / name)
        assert data.class_names is None
        assert "label" not in next(iter(data.train_dataloader()))


def test_a_class_folder_without_an_image_is_named(photos, tmp_path) -> None:
    (photos / "top" / "empty" / "deep").mkdir(parents=True)
    (photos / "top" / "empty" / "deep" / "notes.txt").write_text("x")
    (photos / "__MACOSX").mkdir()
    for source in (photos, zipped(photos)):
        if source != photos:
            with zipfile.ZipFile(source, "a") as archive:
                archive.mkdir("top/empty")
        with pytest.raises(InputError, match=r"found none in top/empty\..*--no-labels"):
            write_shards(source, tmp_path / "out", SIZE, workers=1)
    assert len(open_source(photos)) == COUNT  # as for a codec
    (photos / "top" / "beside.png").write_bytes(png(0))
    assert open_source(photos, labels=True).classes is None


def test_members_beside_images_are_labels_wherever_tars_are_read(tars, tmp_path, codec) -> None:
    assert open_shards(tars).classes == ("0", "1", "2")
    assert checked(module(tars).train_dataloader(), flips=True) == COUNT
    encode_shards(tars, tmp_path / "codes", codec)
    assert checked(module(tmp_path / "codes", in_memory=True).train_dataloader(), True) == COUNT
    (tars / "classes.txt").write_text("\n".join(NAMES) + "\n")
    assert write_shards(tars, tmp_path / "images", SIZE, workers=1).classes == NAMES
    assert checked(module(tmp_path / "images").train_dataloader(), flips=True) == COUNT
    assert module(tars, cache_dir=str(tmp_path / "cache")).class_names == NAMES
    with pytest.raises(InputError, match="other settings"):  # the names differ
        encode_shards(tars, tmp_path / "codes", codec)
    (tars / "classes.txt").write_text("ant\nbee\n")
    for read in (open_shards, lambda tars: open_source(tars, labels=True)):
        with pytest.raises(InputError, match=r"names 2 classes, but .*0\.tar holds the label 2"):
            read(tars)


def test_samples_of_a_span_keep_their_labels(tars) -> None:
    shards = open_shards(tars).first_of_each(7)
    found, _ = read_all(tars)
    assert [(s.index, s.label) for s in found] == [(n, n % 3) for n in range(COUNT)]
    assert [shard.count for shard in shards.shards] == [3, 4]


def test_labels_of_some_samples_only_are_an_error(tmp_path, codec) -> None:
    members = cls_last(0) | cls_last(1) | {"2.png": png(2)} | cls_last(3)
    path = write_tar(tmp_path / "some" / "a.tar", members)
    for read in (open_shards, lambda path: module(path, cache_dir=str(tmp_path / "cache"))):
        with pytest.raises(InputError, match=r"Only 3 of 4 samples in .*a\.tar have a label"):
            read(path)
    with pytest.raises(InputError, match=r"Expected a label .* for a\.tar/2\.png.*got none"):
        write_shards(path, tmp_path / "out", SIZE, workers=1)
    assert write_shards(path, tmp_path / "out", SIZE, workers=1, labels=False).count == 4
    write_tar(tmp_path / "some" / "a.tar", cls_last(0) | cls_last(1))
    write_tar(tmp_path / "some" / "b.tar", {"2.png": png(2)})
    with pytest.raises(InputError, match=r"same classes.*a\.tar holds labels of 2.*b\.tar no labe"):
        open_shards(tmp_path / "some")


@pytest.mark.parametrize("text", [b"", b"x", b"-1", b"1.5", b"99999999999", b"9999999"])
def test_a_label_that_is_no_class_number_is_an_error(tmp_path, text) -> None:
    path = write_tar(tmp_path / "bad" / "a.tar", cls_last(0) | {"1.png": png(1), "1.cls": text})
    with pytest.raises(InputError, match=r"Expected a class number from 0 .*1\.cls"):
        open_shards(path)


def test_json_that_tells_no_label_is_passed_over(tmp_path) -> None:
    texts = [b"{}", b'{"label": "cat"}', b"[1]", b"true", b"x", b"[" * 60_000]
    members: dict[str, bytes] = {}
    for number, text in enumerate(texts):
        members |= {f"{number}.png": png(number), f"{number}.json": text}
    path = write_tar(tmp_path / "captions" / "a.tar", members)
    assert open_shards(path).classes is None
    assert open_source(path, labels=True).classes is None
    assert "label" not in next(iter(module(path).train_dataloader()))


def test_a_label_beyond_the_manifests_classes_is_an_error_while_reading(photos, tmp_path) -> None:
    images = tmp_path / "images"
    write_shards(photos, images, SIZE, workers=1)
    fields = json.loads((images / "manifest.json").read_text())
    (images / "manifest.json").write_text(json.dumps(fields | {"classes": NAMES[:2]}))
    with pytest.raises(InputError, match=r"Expected a label from 0 to 1 for images-0.*got 2"):
        list(module(images).train_dataloader())


def test_training_and_validation_have_the_same_classes(photos, tmp_path) -> None:
    write_shards(photos, tmp_path / "three", SIZE, workers=1)
    write_shards(photos, tmp_path / "none", SIZE, workers=1, labels=False)
    (photos / "top" / "ant").rename(photos / "top" / "dog")
    write_shards(photos, tmp_path / "dogs", SIZE, workers=1)
    for val in ("none", "dogs"):
        with pytest.raises(InputError, match="Expected the same classes everywhere"):
            module(tmp_path / "three", val=str(tmp_path / val))


def test_numbers_without_names_may_reach_less_far_in_one_place() -> None:
    assert common_classes({"train": ("0", "1", "2"), "val": ("0", "1")}) == ("0", "1", "2")
    assert common_classes({"train": None, "val": None}) is None
    assert common_classes({}) is None


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_shard_loses_the_sample_whose_label_is_cut_off(tmp_path, form) -> None:
    members: dict[str, bytes] = {}
    for number in range(6):
        members |= form(number)
    path = write_tar(tmp_path / "cut" / "a.tar", members)
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset])
    with pytest.warns(UserWarning, match="its samples up to there are used"):
        samples, _ = read_all(path)
    assert [sample.label for sample in samples] == [0, 1, 2, 0, 1]
    source = open_source(path, labels=True)
    assert [image.label for image in source] == [0, 1, 2, 0, 1, None]
    write_shards(path, tmp_path / "out", SIZE, workers=1, max_skipped=0.2)


@pytest.mark.filterwarnings("ignore:.*up to there")
def test_a_shard_that_is_cut_behind_its_first_label_holds_no_sample(tmp_path) -> None:
    path = write_tar(tmp_path / "cut" / "a.tar", cls_first(0))
    path.write_bytes(path.read_bytes()[:1024])
    assert open_shards(path).count == 0
    assert [image.label for image in open_source(path, labels=True)] == [None]
