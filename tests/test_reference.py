"""The reference lists what there is, and pages that the library writes are current."""

from contract import public_names
from reference import DOCS, configuration_page, reference

from xpcs_eqx.config import Settings
from xpcs_eqx.config.section import keys_of
from xpcs_eqx.data import layouts_page

OLD = "is old; run `python tests/reference.py`"


def test_the_page_of_layouts_is_current():
    text = (DOCS / "layouts.md").read_text(encoding="utf-8")
    assert text == layouts_page(), f"docs/layouts.md {OLD}"


def test_the_page_of_the_configuration_is_current():
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert text == configuration_page(), f"docs/configuration.md {OLD}"


def test_the_page_of_the_configuration_is_complete():
    text = configuration_page()
    for key, info, _ in keys_of(Settings):
        table, meaning = f"[{key[0]}", info.description or ""
        assert table in text
        assert f"| `{key[-1]}` |" in text or f"{key[-1]}]" in text or f"{key[-1]}." in text, key
        assert meaning.replace("|", "\\|") in text or f"{key[-1]}.NAME]" in text, key


def test_reference_is_complete():
    pages = reference()
    for name in public_names():
        package, _, short = name.rpartition(".")
        assert f"\n## {short} {{ #{short} }}\n" in pages[package or "xpcs_eqx"] or (
            not package and any(f"\n## {short} {{" in page for page in pages.values())
        ), name
        assert f"[`{short}`](" in pages["index"], name
