"""What is called good is right: fits of files whose content was changed.

Changes that no file could tell are named in `helpers_mutated`, with the parameters that they may
change: all times or q scaled with nothing beside them in the file, a film run backwards, maps
scaled and shifted alike, another beginning of time. Where azimuths were
turned or mirrored alike, phi0 has to be turned or mirrored with them.
"""

import helpers_mutated
import pytest

KINDS = len(helpers_mutated.MUTATIONS)


def slipped(seeds, folder, right):
    found = [(seed, *helpers_mutated.attempt(seed, folder, right)) for seed in seeds]
    return [one for one in found if one[-1]]


def test_changed_files_are_not_called_good(tmp_path):
    right = helpers_mutated.originals(tmp_path, ("independent",))
    assert not slipped(range(2, KINDS, 8), tmp_path, right)


@pytest.mark.long
@pytest.mark.parametrize("batch", range(4))
def test_hundreds_of_changed_files(tmp_path, batch):
    right = helpers_mutated.originals(tmp_path)
    first = 10_000 + batch * 5 * KINDS
    assert not slipped(range(first, first + 5 * KINDS), tmp_path, right)
