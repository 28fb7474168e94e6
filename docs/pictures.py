"""The pictures of README and pages, drawn by the program from simulated maps.

    python docs/pictures.py

They are written to `docs/pictures`, small enough for a repository. `precision.png` is drawn from
`precision.json` beside it, whose cells are those of

    python benchmarks/precision.py --models laminar --counts 5,50 --contrasts 0.25 --frames 61

and the same of `--counts 0.5 --maps 100`.
"""

import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
sys.path.insert(0, str(ROOT))

EXAMPLE = ROOT / "examples" / "laminar_aps_u.hdf"
# No page is wider, and fewer colours would draw steps into the fitted maps.
WIDTH, COLOURS = 700, 144

# The bundled example flows; at rest it must not be called good.
WRONG = f"""
data = {{path = "{EXAMPLE.as_posix()}", gap = 2e6}}
model = {{mode = "static"}}
global = {{method = "local"}}
"""
SEVERAL = """
data = {path = "several.hdf"}
model = {mode = "static"}
parameters = {D_offset = {free = false}}
joint = {separate = ["D0"]}
"""


def run(*arguments: str | Path) -> None:
    """A command of the program, whatever its verdict. **Raises:** `SystemExit` if it fails."""
    from xpcs_eqx_command import main

    if main(list(map(str, arguments))) > 1:
        raise SystemExit(f"{arguments[0]} has failed")


def keep(drawn: Path, name: str) -> None:
    """Store a drawing as a small picture."""
    picture = Image.open(drawn).convert("RGB")
    if picture.width > WIDTH:
        height = round(picture.height * WIDTH / picture.width)
        picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    picture = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(PICTURES / f"{name}.png", optimize=True)


def draw_precision(path: Path) -> None:
    """Gain of the likelihood of speckle against counts, as it was measured."""
    from xpcs_eqx.report.plots.canvas import DATA, FIT, log_scale, panels, style

    cells = json.loads((PICTURES / "precision.json").read_text(encoding="utf-8"))["cells"]
    with style():
        figure, ((axes,),) = panels(
            5.0, 3.2, "Errors of the likelihood over those of least squares"
        )
        for name, marker, colour in (("free", "o", DATA), ("fixed", "s", FIT)):
            mine = [cell for cell in cells if cell["offset"] == name]
            counts, ratio, error = (
                [cell[key] for cell in mine] for key in ("counts", "ratio", "ratio_error")
            )
            look = {"fmt": f"{marker}-", "ms": 4, "capsize": 2, "color": colour}
            axes.errorbar(counts, ratio, error, **look, label=f"offset {name}")
        axes.axhline(1.0, color="0.6", lw=0.8)
        axes.set(xlabel="counts a pixel and frame", ylabel="ratio of true errors", ylim=(0, None))
        log_scale(axes, x=True)
        axes.set_xticks(sorted({cell["counts"] for cell in cells}))
        axes.legend()
        figure.savefig(path)


def main() -> None:
    """Draw all of them."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("show", EXAMPLE, "--plot", folder / "show.png")
        keep(folder / "show.png", "show")

        run("fit", ROOT / "examples" / "laminar.toml", "--output", folder / "right", "--quiet")
        for picture in ("maps", "c2_against_lag", "rates"):
            keep(folder / "right" / "plots" / f"{picture}.png", picture)

        (folder / "wrong.toml").write_text(WRONG, encoding="utf-8")
        run("fit", folder / "wrong.toml", "--quiet")
        keep(folder / "wrong_results" / "plots" / "mean_residuals.png", "misfit")

        simulated = ["--model", "static", "--angles", "0", "--set", "D_offset=0", "--half"]
        simulated += [
            "--q",
            "0.002,0.003,0.005,0.008,0.012",
            "--set",
            "alpha=0",
            "--set",
            "D0=40000",
        ]
        run("simulate", folder / "several.hdf", "--layout", "aps-u", *simulated)
        (folder / "several.toml").write_text(SEVERAL, encoding="utf-8")
        run("fit", folder / "several.toml", "--quiet")
        keep(folder / "several_results" / "plots" / "q.png", "exponent")

        draw_precision(folder / "precision.png")
        keep(folder / "precision.png", "precision")


if __name__ == "__main__":
    main()
