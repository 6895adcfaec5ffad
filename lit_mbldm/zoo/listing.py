"""What there is in the zoo, as text."""

from lit_mbldm.zoo.entry_config import CONFIG, read_config
from lit_mbldm.zoo.load import ASSETS, list_pretrained

_MOST = 100


def list_shipped() -> str:
    """The entries that ship with the package, with their figures."""
    lines = ["Shipped with lit_mbldm, no network needed:"]
    for name in list_pretrained():
        config = read_config(ASSETS / name / CONFIG)
        kind = str(config.model["class_path"]).rpartition(".")[2]
        size = sum(path.stat().st_size for path in (ASSETS / name).rglob("*") if path.is_file())
        lines += ["", f"{name}   {kind}, {size / 1e6:.1f} MB"]
        if config.about.data:
            lines.append(f"  has seen {config.about.data}")
        lines += [
            f"  {figure.metric} {figure.value:g} ({figure.data})" for figure in config.about.figures
        ]
    return "\n".join(
        [*lines, "", 'Load one with load_pretrained("NAME"); --search looks on the Hub.']
    )


def list_hub(words: str) -> str:
    """Repositories on the Hub whose card names this library, most downloaded first.

    Args:
        words: in their names; all where there are none.

    Raises:
        InputError: offline.
        OSError: the Hub fails.
    """
    from huggingface_hub import HfApi, constants

    from lit_mbldm.zoo.card import LIBRARY
    from lit_mbldm.zoo.hub_errors import hub_errors_explained

    with hub_errors_explained("The list of models"):
        found = list(
            HfApi().list_models(filter=LIBRARY, search=words or None, sort="downloads", limit=_MOST)
        )
    if not found:
        return f"{constants.ENDPOINT} has no {LIBRARY} model{f' named {words}' if words else ''}."
    width = max(len(model.id) for model in found)
    rows = [
        f"{model.id:<{width}}  {model.downloads or 0:>9,} downloads  {model.pipeline_tag or ''}"
        f"{'  private' if model.private else ''}"
        for model in found
    ]
    more = [f"The first {_MOST}; give more words."] if len(found) == _MOST else []
    return "\n".join([*rows, *more])
