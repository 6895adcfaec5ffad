import json
import socket
from pathlib import Path

import pytest
import torch

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import list_pretrained, load_pretrained
from lit_mbldm.zoo.entry import save_entry


def test_the_shipped_codec_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    codec = load_pretrained("opq-32-8-8")
    assert isinstance(codec, PatchCodec)
    assert codec.quantizer == "OPQ-32-8-8"
    assert not codec.training
    assert "opq-32-8-8" in list_pretrained()


def test_the_shipped_codec_s_config_tells_its_fingerprint() -> None:
    folder = Path(load_pretrained.__code__.co_filename).parent / "assets" / "opq-32-8-8"
    config = json.loads((folder / "config.json").read_text())
    assert config["fingerprint"] == load_pretrained("opq-32-8-8").fingerprint


def test_an_entry_survives_the_disk(tmp_path: Path) -> None:
    codec = load_pretrained("opq-32-8-8")
    save_entry(codec, tmp_path / "codec")
    again = load_pretrained(tmp_path / "codec")
    assert again.fingerprint == codec.fingerprint
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(again.encode(images), codec.encode(images))
    assert sorted(p.name for p in (tmp_path / "codec").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_an_entry_is_not_overwritten(tmp_path: Path) -> None:
    save_entry(PatchCodec("VQ-8-8-8"), tmp_path)
    with pytest.raises(InputError, match="already holds"):
        save_entry(PatchCodec("VQ-8-8-8"), tmp_path)


def test_a_flipped_byte_a_missing_file_and_other_formats_are_named(tmp_path: Path) -> None:
    save_entry(PatchCodec("VQ-8-8-8"), tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    good, text = weights.read_bytes(), config.read_text()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(InputError, match="sha256"):
        load_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_pretrained(tmp_path)
    weights.write_bytes(good)
    config.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match="format 2"):
        load_pretrained(tmp_path)
    config.write_text(text.replace("VQ-8-8-8", "PQ-16-8-8"))
    with pytest.raises(InputError, match="does not fit"):
        load_pretrained(tmp_path)
    config.write_text("[]")
    with pytest.raises(InputError, match="no readable entry"):
        load_pretrained(tmp_path)


def test_unknown_names_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="opq-32-8-8"):
        load_pretrained("no-such-model")
    (tmp_path / "model.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="no checkpoint"):
        load_pretrained(tmp_path / "model.ckpt")


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (marker,)

    torch.save({"state_dict": Payload()}, tmp_path / "evil.ckpt")
    with pytest.raises(InputError):
        load_pretrained(tmp_path / "evil.ckpt")
    assert not marker.exists()
