"""Results folders side by side: `xpcs-eqx compare`."""

from collections.abc import Sequence

from ..files import write_text
from ..report.collection import as_csv, as_page, comparison, read_result


def compare(folders: Sequence[str], *, csv: str | None = None, html: str | None = None) -> str:
    """Parameters of several results folders side by side; also written as CSV and as a page.

    Folders of the same name go by their whole path.

    **Raises:** `ConfigError` for what is no results folder.
    """
    results = [read_result(one) for one in folders]
    names = [one.name for one in results]
    if len(set(names)) < len(names):
        results = [read_result(one, name=one) for one in folders]
    texts = {
        csv: lambda: as_csv(results),
        html: lambda: as_page("Comparison", results, beside=True),
    }
    for path, text in texts.items():
        if path is not None:
            write_text(path, text())
    return comparison(results)
