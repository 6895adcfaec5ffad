"""Shards over http, from a server on loopback that fails on purpose."""

import gc
import io
import itertools
import json
import multiprocessing
import tarfile
import threading
import time
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
from batches import read_all, same

from lit_mbldm.data.loading.datamodule import ShardDataModule
from lit_mbldm.data.prepare.write_shards import write_shards
from lit_mbldm.data.shards.locate import open_shards
from lit_mbldm.data.shards.reading import dump_codes, read_span, spans
from lit_mbldm.data.shards.skips import SkipLog
from lit_mbldm.errors import InputError
from lit_mbldm.storage import urls
from lit_mbldm.storage.urls import open_binary

SHARD = "codes-000001.tar"


def epoch_of(patterns: Any, workers: int = 0, batch_size: int = 4) -> list[dict[str, Any]]:
    module = ShardDataModule(
        patterns, batch_size=batch_size, num_workers=workers, seed=3, max_skipped=1.0
    )
    module.setup("fit")
    return list(module.train_dataloader())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_over_http_is_that_of_local_files(code_shards, server, workers) -> None:
    expected = epoch_of(str(code_shards), workers)
    with open_binary(f"{server.url}/codes/{SHARD}") as stream:  # used before workers are forked
        stream.read(1)
        assert same(epoch_of(f"{server.url}/codes", workers), expected)
    assert same(epoch_of(f"{server.url}/codes", workers), expected)


def test_file_systems_with_connections_work_in_forked_workers(code_shards, server) -> None:
    expected = epoch_of(str(code_shards), 2)
    assert same(epoch_of(f"simplecache::{server.url}/codes", 2), expected)
    worker = multiprocessing.get_context("fork").Process(target=gc.collect)
    worker.start()
    worker.join()
    counts: list[int] = []

    def again() -> None:
        counts.append(open_shards(f"simplecache::{server.url}/codes").count)

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    thread.join(10)
    assert counts == [40]


def test_folders_and_braces_name_the_same_shards(code_shards, server) -> None:
    braces, local = f"{server.url}/codes/codes-{{000000..000003}}.tar", open_shards(code_shards)
    assert open_shards(braces).shards == open_shards(f"{server.url}/codes/").shards
    with pytest.raises(InputError, match=r"cannot be listed.*manifest\.json"):
        open_shards(f"{server.url}/codes/*.tar")
    (code_shards / "manifest.json").unlink()
    assert [(s.name, s.count, s.tag, s.start) for s in open_shards(braces).shards] == [
        (s.name, s.count, s.tag, s.start) for s in local.shards
    ]
    with pytest.raises(InputError, match=r"manifest\.json"):
        open_shards(f"{server.url}/codes")


def test_a_thousand_shards_are_opened_by_one_request(code_shards, server) -> None:
    path = code_shards / "manifest.json"
    manifest = json.loads(path.read_text())
    entry = manifest["shards"][0]
    manifest["shards"] = [{**entry, "name": f"codes-{i:06d}.tar"} for i in range(1000)]
    manifest["count"] = 1000 * entry["count"]
    path.write_text(json.dumps(manifest))
    assert open_shards(f"{server.url}/codes").count == 10_000
    assert len(server.asked) == 1
    server.asked.clear()
    assert open_shards(f"{server.url}/codes/codes-{{000000..000999}}.tar").count == 10_000
    assert len(server.asked) == 1


def test_memory_does_not_grow_with_the_shard(server, tmp_path) -> None:
    data = dump_codes(np.zeros((1, 1, 512, 512), dtype=np.uint8))
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for index in range(400):
            member = tarfile.TarInfo(f"{index}.png")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    tracemalloc.start()
    shards = open_shards(f"{server.url}/images.tar")
    samples = read_span(spans(shards.shards, 0, 400)[0], SkipLog().add)
    assert sum(1 for _ in samples) == 400
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20 < 400 * len(data) / 2  # the server takes 10 MB a request


@pytest.mark.filterwarnings("ignore:.*trying again")
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    "passing",
    [
        [("cut", 5000)],
        [("cut", 5000), ("cut", 9000), ("cut", 9001)],
        [("stall", 5000)],
        [503, 500],
        [429],
        [("cut", 5000), 503],
    ],
    ids=str,
)
def test_a_passing_fault_loses_nothing(code_shards, server, monkeypatch, ranges, passing) -> None:
    expected = epoch_of(str(code_shards))
    server.ranges = ranges
    server.faults[SHARD] = iter(passing)
    monkeypatch.setattr(urls, "TIMEOUT", 0.3)
    assert same(epoch_of(f"{server.url}/codes"), expected)
    assert next(server.faults[SHARD], None) is None
    resumed = [wanted for path, wanted, _ in server.asked if SHARD in path and wanted]
    assert bool(resumed) == ("cut" in str(passing) or "stall" in str(passing))


def test_a_connection_that_always_drops_loses_the_rest(server, make_photos, tmp_path) -> None:
    write_shards(make_photos(80), tmp_path / "images", 16, shard_size=40, workers=1)
    expected, _ = read_all(str(tmp_path / "images"))
    server.faults["images-000000.tar"] = itertools.repeat(("cut", 30_000))
    with pytest.warns(UserWarning, match="trying again"):
        samples, skips = read_all(f"{server.url}/images")
    good = len(samples) - 40
    assert 10 < good < 30_000 / 1024
    assert samples == expected[:good] + expected[40:]
    assert skips.count == 40 - good
    assert [entry["name"] for entry in skips.entries] == ["images-000000.tar"]
    assert f"ends after {good} samples" in skips.entries[0]["reason"]
    assert " bytes before the end, 4 times)" in skips.entries[0]["reason"]


def test_a_missing_shard_is_skipped_counted_and_asked_for_once(code_shards, server) -> None:
    (code_shards / SHARD).unlink()
    samples, skips = read_all(f"{server.url}/codes")
    assert skips.count == 10
    assert [sample.index for sample in samples] == [*range(10), *range(20, 40)]
    reason = f"ends after 0 samples ({server.url}/codes/{SHARD} does not exist)"
    assert skips.entries == [{"name": SHARD, "reason": reason, "count": 10}]
    assert len(server.asked_for(SHARD)) == 1


def test_a_server_that_stays_broken_stops_the_run_with_its_name(code_shards, server) -> None:
    server.faults["manifest.json"] = itertools.repeat(503)
    again = pytest.warns(UserWarning, match="trying again")
    with again, pytest.raises(InputError, match="HTTP 503") as error:
        open_shards(f"{server.url}/codes")
    assert f"{server.url}/codes/manifest.json" in str(error.value)
    with again, pytest.raises(InputError, match="refused"):
        open_shards("http://127.0.0.1:9/codes")


def test_secrets_reach_the_server_and_no_message(code_shards, server, recwarn) -> None:
    url = f"{server.url}/codes?token=se%2Fsame&x=1".replace("//", "//user:open@")
    shards = open_shards(url)
    server.faults[SHARD] = itertools.repeat(500)
    (code_shards / "codes-000002.tar").unlink()
    samples, skips = read_all(url)
    assert len(samples) == 20
    assert all(path.endswith("?token=se%2Fsame&x=1") for path, _, _ in server.asked)
    assert {user for _, _, user in server.asked} == {"Basic dXNlcjpvcGVu"}
    told = [str(warning.message) for warning in recwarn] + [shards.name, skips.summary()]
    told += [str(shards.versions()), samples[0].name]
    for bad in [f"{url}&y={{1..2", url.replace("/codes", "/none"), f"{url}*".replace("?", "*?")]:
        with pytest.raises(InputError) as error:
            open_shards(bad)
        told.append(str(error.value))
    assert server.url in " ".join(told)
    assert not [text for text in told if "open" in text.replace("opens", "") or "same" in text]


def test_identity_of_remote_shards(code_shards, server, tmp_path) -> None:
    local = open_shards(code_shards).versions()
    assert open_shards(f"{server.url}/codes").versions() == local
    (code_shards / "manifest.json").unlink()
    pattern = f"{server.url}/codes/codes-{{000000..000003}}.tar"
    first = open_shards(pattern).versions()
    assert open_shards(f"{pattern}?token=1").versions() == first != local
    assert [size for _, size, _ in first] == [size for _, size, _ in local]
    time.sleep(0.01)
    (code_shards / SHARD).touch()
    changed = open_shards(pattern).versions()
    assert [a != b for a, b in zip(first, changed, strict=True)] == [False, True, False, False]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_with_a_shard_lost(image_shards, server, workers) -> None:
    (image_shards / "images-000002.tar").unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = epoch_of(f"{server.url}/images", workers, batch_size=10)
    assert [len(batch["images"]) for batch in batches] == [10] * 4
    assert not {int(index) for batch in batches for index in batch["index"]} & set(range(20, 30))
    assert any("Skipped images-000002.tar" in str(warning.message) for warning in caught)
