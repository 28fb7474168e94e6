"""What a layout needs, in words: for messages and for the page of layouts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """The HDF5 paths of a layout or the names of its arrays, in sentences.

    - `required`, `optional`: what is read.
    - `guessed`: what is concluded where the file does not say it.
    - `refused`: what is an error.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def need(self) -> str:
        """What is required, in half a line, without shapes and meanings."""
        named = (one.partition(":")[0] for one in self.required)
        return ", ".join(name for one in named for name in one.split("`")[1::2])
