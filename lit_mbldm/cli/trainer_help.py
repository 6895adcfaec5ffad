"""Lightning's own verbs in one short page each; `trainer` runs them."""

import argparse
import re
from pathlib import Path

from lit_mbldm.cli.arguments import Verbs
from lit_mbldm.cli.config_files import shipped_configs

_CHECKPOINT = (
    "--ckpt_path FILE",
    "the checkpoint, such as runs/NAME/version_0/checkpoints/last.ckpt",
)
TRAINER_VERBS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "fit": (
        "train a model from a config",
        [
            ("--ckpt_path last", "go on where the run stopped"),
            ("--data.train SHARDS", "code or image shards: a folder, a pattern or a list"),
            ("--data.val SHARDS", "others, for the loss and pictures of samples on the way"),
            ("--data.batch_size N", "of each process"),
            ("--model.learning_rate X", "of Adam"),
            ("--trainer.max_steps N", "when to stop"),
            ("--trainer.devices N", "processes on this machine; --trainer.num_nodes machines"),
        ],
    ),
    "validate": ("measure a model's loss on the validation data", [_CHECKPOINT]),
    "test": (
        "FID, KID, precision and recall of a checkpoint's samples",
        [
            _CHECKPOINT,
            ("--score.num_images N", "samples to draw (default: 5000)"),
            ("--score.reference SHARDS", "image shards to compare with"),
        ],
    ),
    "predict": (
        "write a checkpoint's samples to a folder, on any number of devices",
        [
            _CHECKPOINT,
            ("--samples.num_images N", "samples to draw (default: 1000)"),
            ("--samples.out DIR", "folder to write"),
        ],
    ),
}


def add_trainer(verbs: Verbs) -> None:
    """`fit`, `validate`, `test` and `predict`: what `--help` prints."""
    for name, (text, options) in TRAINER_VERBS.items():
        verbs.add_parser(
            name,
            help=f"{text} (--config FILE)",
            usage=f"lightning {name} --config CONFIG [--KEY VALUE ...]",
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=_page(name, options),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )


def _page(verb: str, options: list[tuple[str, str]]) -> str:
    configs = [(name, _first_sentence(path)) for name, path in shipped_configs().items()]
    config = ("--config CONFIG", "a file, or the name of a config below")
    more = [
        (f"lightning {verb} --config CONFIG --print_config", "every key with its value"),
        (f"lightning {verb} --model.help CLASS", "what a model's class takes; so with --data.help"),
        (f"lightning {verb} --help-all", "every option of Lightning's trainer too"),
    ]
    return "\n\n".join(
        f"{title}:\n{_table(rows)}"
        for title, rows in (
            ("main options, each a key of the config too", [config, *options]),
            ("configs", configs),
            ("more", more),
        )
    )


def _table(rows: list[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows) + 2
    return "\n".join(f"  {left:<{width}}{right}" for left, right in rows)


def _first_sentence(config: Path) -> str:
    comment = re.match(r"(?:#.*\n)*", config.read_text(encoding="utf-8"))
    text = " ".join(line.strip("# ") for line in comment[0].splitlines()) if comment else ""
    return re.split(r"[.:](?:\s|$)", text)[0]
