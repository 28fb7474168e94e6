"""The reference lists what there is."""

from contract import public_names
from reference import LAYOUTS, PATH, reference

from xpcs_eqx.data import layouts_page


def test_reference_is_current():
    text = PATH.read_text(encoding="utf-8")
    assert text == reference(), "REFERENCE.md is old; run `python tests/reference.py`"


def test_the_page_of_layouts_is_current():
    text = LAYOUTS.read_text(encoding="utf-8")
    assert text == layouts_page(), "LAYOUTS.md is old; run `python tests/reference.py`"


def test_reference_is_complete():
    text = reference()
    for name in public_names():
        assert f"**`{name.split('.')[-1]}`**" in text, name
