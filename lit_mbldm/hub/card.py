"""`README.md`: what the Hub indexes of a model, and what people want to know of it."""

import re

import yaml
from huggingface_hub import EvalResult, ModelCardData
from torch import nn

from lit_mbldm.entries.about import About
from lit_mbldm.entries.entry_config import LIBRARY, PICTURE
from lit_mbldm.hub.kinds import Kind, kind_of

_NOT_STATED = "not stated"
_DATASET = re.compile(r"[\w.-]+(/[\w.-]+)?")  # as the Hub names them


def write_card(module: nn.Module, about: About) -> str:
    """Write the card of an entry that has no repository yet; InputError on another module."""
    kind = kind_of(module, about)
    origin = {
        "Data": about.data or _NOT_STATED,
        "Terms of the data": about.terms or _NOT_STATED,
        "Licence of the weights": about.license or _NOT_STATED,
    }
    if about.base_model:
        origin["Fine-tuned"] = f"training started from the weights of `{about.base_model}`"
    if about.steps:
        origin["Training steps"] = f"{about.steps:,}"
    parts = [
        f"---\n{_metadata(kind, about)}\n---",
        f"# {kind.title}\n\n{kind.summary}\n\n![{kind.caption}]({PICTURE})\n\n*{kind.caption}.*",
        "## Use\n\n`pip install lit-mbldm`, then",
        f"```python\nfrom lit_mbldm import load_pretrained\n\n{kind.use}\n```",
        f"## What it is\n\n{_list({'Class': f'`{type(module).__name__}`', **kind.facts})}",
        "Weights are safetensors. `config.json` holds the sha256 of every file: pulling compares"
        " all of them, loading those that it reads.",
        f"## Where it comes from\n\n{_list(origin)}",
    ]
    if about.command:
        parts.append(f"```bash\n{about.command}\n```")
    if about.config:
        text = yaml.safe_dump(dict(about.config), sort_keys=False)
        parts.append(f"Its config, without paths and loggers:\n\n```yaml\n{text}```")
    if about.figures:
        parts.append(f"## Figures\n\n{_tables(about)}")
    return "\n\n".join(parts) + "\n"


def address_card(card: str, name: str) -> str:
    """Say by which name the model is loaded, where the card first says it."""
    return re.sub(r'load_pretrained\("[^"]*"\)', f'load_pretrained("{name}")', card, count=1)


def unstated(card: str) -> tuple[str, ...]:
    """What a card says that it does not know."""
    return tuple(re.findall(rf"^- (.+): {_NOT_STATED}$", card, re.MULTILINE))


def _metadata(kind: Kind, about: About) -> str:
    results = [
        EvalResult(
            task_type=kind.task,
            dataset_type=figure.data or _NOT_STATED,
            dataset_name=figure.data or _NOT_STATED,
            metric_type=figure.metric.split()[0].lower(),  # `psnr` of `PSNR (dB)`
            metric_name=figure.metric,
            metric_value=figure.value,
        )
        for figure in about.figures
    ]
    base = about.base_model
    quantised = ["vector-quantization"] if kind.quantised else []
    return ModelCardData(
        license=about.license,
        base_model=base if base and "/" in base else None,  # an id of the Hub
        library_name=LIBRARY,
        tags=[LIBRARY.replace("_", "-"), *quantised, kind.tag],
        pipeline_tag=kind.task,
        datasets=[about.data] if about.data and _DATASET.fullmatch(about.data) else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=kind.title if results else None,
        eval_results=results or None,
    ).to_yaml()


def _list(facts: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {' '.join(fact.split())}" for name, fact in facts.items())


def _tables(about: About) -> str:
    """A table of figures for each command that printed some."""
    by_command: dict[str, list[str]] = {}
    for figure in about.figures:
        texts = (figure.metric, f"{figure.value:g}", figure.data)
        cells = (" ".join(text.split()).replace("|", "\\|") for text in texts)
        rows = by_command.setdefault(" ".join(figure.command.split()), [])
        rows.append(f"| {' | '.join(cells)} |")
    header = "| figure | | measured on |\n|---|---|---|\n"
    titles = {command: f"By `{command}`:\n\n" if command else "" for command in by_command}
    return "\n\n".join(titles[one] + header + "\n".join(rows) for one, rows in by_command.items())
