"""Lightning's own verbs in one short page each; `trainer` runs them."""

import argparse
import re
from pathlib import Path

from lit_mbldm.cli.arguments import Verbs
from lit_mbldm.cli.config_files import shipped_configs

_CHECKPOINT = "--ckpt_path FILE            such as runs/NAME/version_0/checkpoints/last.ckpt"
# what each verb does, and its main options
TRAINER_VERBS = {
    "fit": (
        "train a model from a config",
        """\
  --ckpt_path last            continue where the run stopped
  --data.train SHARDS         code or image shards: a folder, a pattern or a list
  --data.val SHARDS           others, for the loss and pictures of samples on the way
  --data.batch_size N         batch size of each process
  --model.learning_rate X     learning rate of the optimiser
  --trainer.max_steps N       when to stop
  --trainer.devices N         processes on this machine; --trainer.num_nodes machines""",
    ),
    "validate": ("measure a model's loss on the validation data", f"  {_CHECKPOINT}"),
    "test": (
        "score a checkpoint's samples: FID, KID, precision, recall and copies",
        f"""\
  {_CHECKPOINT}
  --score.num_images N        samples to draw (default: 5000)
  --score.reference SHARDS    held-out image shards to compare with (default: --data.val)""",
    ),
    "predict": (
        "write a checkpoint's samples to a folder, on any number of devices",
        f"""\
  {_CHECKPOINT}
  --samples.num_images N      samples to draw (default: 1000)
  --samples.out DIR           folder to write""",
    ),
}
_PAGE = """\
main options, each a key of the config too:
  --config CONFIG             a file, or the name of a config below
{options}

configs:
{configs}

more:
  --print_config              show every key with its value
  --model.help CLASS          show what a model's class takes; so with --data.help
  --help-all                  show every option of Lightning's trainer too
"""


def add_trainer(verbs: Verbs) -> None:
    """`fit`, `validate`, `test` and `predict`: what `--help` prints."""
    shipped = shipped_configs().items()
    configs = "\n".join(f"  {name:<26}  {_first_sentence(path)}" for name, path in shipped)
    for verb, (text, options) in TRAINER_VERBS.items():
        verbs.add_parser(
            verb,
            help=f"{text} (--config FILE)",
            usage=f"lightning {verb} --config CONFIG [--KEY VALUE ...]",
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=_PAGE.format(options=options, configs=configs),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )


def _first_sentence(config: Path) -> str:
    text = re.sub(r"\n[^#](.|\n)*", "", config.read_text(encoding="utf-8"))
    return re.split(r"[.:](?:\s|$)", text.replace("\n#", "").lstrip("# "))[0]
