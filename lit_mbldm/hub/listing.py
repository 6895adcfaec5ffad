"""What there is in the zoo, as text."""

from lit_mbldm.entries.entry_config import ASSETS, CONFIG, LIBRARY, list_pretrained, read_config

_MOST = 100
_SECONDS = 4.0


def list_shipped() -> str:
    """The entries that ship with the package, with their licences and figures."""
    lines = ["Shipped with lit_mbldm, no network needed:"]
    for name in list_pretrained():
        config = read_config(ASSETS / name / CONFIG)
        kind = str(config.model["class_path"]).rpartition(".")[2]
        size = sum(path.stat().st_size for path in (ASSETS / name).rglob("*") if path.is_file())
        lines += ["", f"{name}   {kind}, {size / 1e6:.1f} MB"]
        lines += [f"  licence of the weights: {config.about.license or 'not stated'}"]
        lines += [f"  data: {config.about.data or 'not stated'}"]
        lines += [f"  {f.metric} {f.value:g} ({f.data})" for f in config.about.figures]
    hint = 'Load one with load_pretrained("NAME"); --search looks on the Hub.'
    return "\n".join([*lines, "", hint])


def list_hub(words: str) -> str:
    """Repositories on the Hub whose card names this library, most downloaded first.

    Their names have these words. Raises InputError offline, OSError where the Hub fails.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    from lit_mbldm.entries.hub_errors import hub_errors_explained

    asked = {"filter": LIBRARY, "sort": "downloads", "limit": str(_MOST), "search": words}
    headers = build_hf_headers(library_name=LIBRARY)
    url = f"{constants.ENDPOINT}/api/models"
    with hub_errors_explained("The list of models"):
        # the client's own list_models asks for half a minute where there is no network
        response = get_session().get(url, params=asked, headers=headers, timeout=_SECONDS)
        hf_raise_for_status(response)
        found = response.json()
    rows = []
    for model in found:
        cells = [model["id"], f"{model.get('downloads', 0):,} downloads", model.get("pipeline_tag")]
        cells += ["private" if model.get("private") else ""]
        cells += [tag for tag in model.get("tags", []) if tag.startswith("license:")]
        rows.append("  ".join(filter(None, cells)))
    rows += [f"The first {_MOST}; give more words."] if len(found) == _MOST else []
    named = f" named {words}" if words else ""
    return "\n".join(rows) or f"{constants.ENDPOINT} has no {LIBRARY} model{named}."
