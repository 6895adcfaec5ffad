"""Damage to the files of an entry, drawn from a seed."""

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    2,
    -1,
    7,
    0.5,
    1e308,
    -1e308,
    2**24,
    2**31,
    2**63,
    10**12,
    10**40,
    "",
    "x",
    "1",
    "../x",
    "PQ-4-2-2",
    "OPQ-8-2-2",
    "cosine",
    "v",
    "org/codec",
    "opq-32-8-8",
    "a" * 5000,
    [],
    [1],
    [1, 2],
    [[]],
    [1] * 5000,
    {},
    {"a": 1},
    {"class_path": "lit_mbldm.codecs.PatchCodec"},
    {"class_path": "lit_mbldm.denoisers.UNet", "init_args": {}},
    {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}},
    {"class_path": "lit_mbldm.metrics.inception.InceptionFeatures"},
    {"class_path": "lit_mbldm.training.module.LambdaLR"},
    "lit_mbldm.codecs.PatchCodec",
    "lit_mbldm.codecs.channelwise.PatchCodec",
    "lit_mbldm.codecs.vector_quantized.ProductCodebook",
    "lit_mbldm.denoisers.UNet",
    "lit_mbldm.denoisers.RefinerUNet",
    "lit_mbldm.denoisers.layers.Attention",
    "lit_mbldm.processes.GaussianProcess",
    "lit_mbldm.processes.CategoricalProcess",
    "lit_mbldm.training.ContinuousDiffusion",
    "lit_mbldm.training.CategoricalDiffusion",
    "lit_mbldm.training.Refiner",
    "lit_mbldm.training.diffusion.DiffusionModule",
    "lit_mbldm.training.loss_by_time.LossByTime",
    "lit_mbldm.__main__.Main",
    "os.system",
]
DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "U16", "F8_E4M3", "F4", "C64"]
Place = tuple[Any, Any]  # a container and a key or index of it


def _block(draw: random.Random, data: bytes) -> slice:
    start = draw.randrange(len(data))
    return slice(start, start + draw.choice([1, 2, 4, 8, 64, 512]))


def damage_bytes(draw: random.Random, data: bytes) -> bytes:
    """Flip, cut, insert, drop, double, swap or blank bytes."""
    raw, part, other = bytearray(data), _block(draw, data), _block(draw, data)
    match draw.randrange(8):
        case 0:
            for _ in range(draw.choice([1, 1, 1, 2, 8])):
                raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        case 1:
            del raw[part.start :]
        case 2:
            raw[part.start : part.start] = draw.randbytes(draw.choice([1, 4, 8, 100]))
        case 3:
            del raw[part]
        case 4:
            raw[part.start : part.start] = data[part]
        case 5:
            first, second = data[part], data[other]
            raw[other] = first
            raw[part] = second
        case 6:
            raw[part] = bytes(len(data[part]))
        case 7:
            raw += draw.randbytes(draw.choice([1, 8, 1000]))
    return bytes(raw)


def _places(value: Any) -> Iterator[Place]:
    keys: Any = ()
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        yield value, key
        yield from _places(value[key])


def damage_values(draw: random.Random, values: Any) -> Any:
    """Set, drop, add, swap, wrap or retype values somewhere in a JSON tree."""
    values = copy.deepcopy(values)
    container, key = draw.choice(list(_places(values)))
    old = container[key]
    match draw.randrange(9):
        case 0 | 1:
            container[key] = copy.deepcopy(draw.choice(VALUES))
        case 2:
            del container[key]
        case 3:
            if isinstance(container, dict):
                container[draw.choice(["x", "self", "codec", "denoiser", "dropout", "network"])] = (
                    copy.deepcopy(draw.choice(VALUES))
                )
            else:
                container.append(copy.deepcopy(draw.choice(VALUES)))
        case 4:
            inner, where = draw.choice(list(_places(values)))
            container[key], inner[where] = copy.deepcopy(inner[where]), copy.deepcopy(old)
        case 5:
            container[key] = draw.choice([lambda v: [v], lambda v: {"value": v}, str])(old)
        case 6 | 7:
            container[key] = _other_number(draw, old)
        case 8:
            if isinstance(container, dict):
                container[f"{key}{draw.choice('_x.')}"] = container.pop(key)
    return values


def _other_number(draw: random.Random, old: Any) -> Any:
    if isinstance(old, bool):
        return not old
    if isinstance(old, int | float):
        change: Callable[[Any], Any] = draw.choice(
            [lambda v: v + 1, lambda v: v - 1, lambda v: 2 * v, lambda v: -v, float, lambda v: v**9]
        )
        return change(old)
    if isinstance(old, str) and old:
        place = draw.randrange(len(old))
        return old[:place] + draw.choice("aZ0._-/") + old[place + 1 :]
    return draw.choice(VALUES)


def damage_header(draw: random.Random, data: bytes) -> bytes:
    """Change what a safetensors file says of its tensors, or swap two of them."""
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    first, second = draw.choice(names), draw.choice(names)
    one, two = header[first], header[second]
    match draw.randrange(8):
        case 0:
            one["dtype"] = draw.choice(DTYPES)
        case 1:
            one["shape"] = draw.choice([one["shape"][::-1], [*one["shape"], 1], [], [2**40, 2**40]])
        case 2:
            one["data_offsets"], two["data_offsets"] = two["data_offsets"], one["data_offsets"]
        case 3:
            header[first], header[second] = two, one
        case 4:
            header[draw.choice([first + "x", "", "denoiser.head.bias", "__metadata__"])] = (
                header.pop(first)
            )
        case 5:
            one["data_offsets"][draw.randrange(2)] += draw.choice([-4, 4, 8, 2**40, -(2**40)])
        case 6:
            return _packed(damage_values(draw, header), body)
        case 7:
            # swap numbers among the weights: another file that is whole
            place, other = (4 * draw.randrange(len(body) // 4) for _ in range(2))
            raw = bytearray(body)
            raw[place : place + 4], raw[other : other + 4] = (
                body[other : other + 4],
                body[place : place + 4],
            )
            body = bytes(raw)
    return _packed(header, body)


def _packed(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body
