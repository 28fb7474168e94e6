"""The reference lists what there is."""

from contract import public_names
from reference import PATH, reference


def test_reference_is_current():
    text = PATH.read_text(encoding="utf-8")
    assert text == reference(), "REFERENCE.md is old; run `python tests/reference.py`"


def test_reference_is_complete():
    text = reference()
    for name in public_names():
        assert f"**`{name.split('.')[-1]}`**" in text, name
