"""Saliency maps, sheets and boxes of image files, written as files in the pixels of the image."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ribcage.bundle.io import Bundle, Classifier
from ribcage.bundle.spec import DEFAULT_RULE
from ribcage.inference import explanation, gradcam, sanity
from ribcage.inference.file_predictions import FilePrediction, FilePredictions
from ribcage.inference.gradcam import MapMethod
from ribcage.inference.image_files import DecodedImages
from ribcage.reports import saliency
from ribcage.reports.prediction_lines import sanity_lines
from ribcage.runtime import progress

CHECKED = 16
"""Images that the sanity check takes at most."""
LONG = 20
"""With more files than this a progress line is shown."""


@dataclass(frozen=True)
class MapFiles:
    """Which maps of which findings are written where."""

    opened: Bundle
    decoded: DecodedImages
    map_method: MapMethod
    maps: Path | None = None
    """Folder of the maps, or of images with a detector's boxes."""
    sheet: Path | None = None
    """A file that ends in .svg, or a folder."""
    findings: tuple[str, ...] = ()
    """Findings to map; none: those that reach their threshold, else the most probable one."""
    rule: str = ""
    grids: set[tuple[int, int]] = field(default_factory=set)
    """Cells of the maps, down and across, as far as maps were made."""

    def write(self, found: FilePredictions, say: Callable[[str], None] = print) -> None:
        """Write the files of all images; an error with one image is printed and does not stop the others."""
        paths, readable = found.readable, [one for one in found.files if not one.error]
        draw = self._boxes if self.opened.spec.detector else self._maps
        made: list[Path] = []

        def work() -> Iterable[int]:
            for one, place in zip(readable, explanation.output_places(paths), strict=True):
                try:
                    made.extend(draw(one, place, say))
                except (ValueError, FileNotFoundError, MemoryError) as error:
                    say(f"! {one.path}: no map was written: {' '.join(str(error).split()) or type(error).__name__}")
                yield 1

        for _ in progress.track(work(), len(paths), "maps", "files") if len(paths) > LONG else work():
            pass
        say(_written(made))
        for grid in sorted(self.grids):
            say(
                f"! {self._coarse(grid)}"
                if self._coarse(grid)
                else f"{self.map_method.name}: {grid[0]} × {grid[1]} cells."
            )

    def _coarse(self, grid: tuple[int, int]) -> str:
        """A warning where the maps have few cells."""
        assert isinstance(self.opened, Classifier)
        return gradcam.coarseness(self.opened.method, grid, self.opened.spec.size, self.map_method)

    def _maps(self, one: FilePrediction, place: Path, say: Callable[[str], None]) -> list[Path]:
        """The maps and the sheet of a file."""
        model, image = self.opened.spec, self.decoded.read(one.path)
        found = explanation.file_saliency(self.opened, image, self.map_method)
        probabilities, high, made = one.probabilities, one.reached, []
        self.grids.add((found.maps.shape[1], found.maps.shape[2]))
        if self.maps:
            chosen = self.findings or high or (max(probabilities, key=lambda name: probabilities[name]),)
            if empty := [name for name in chosen if name in found.empty]:
                say(f"{one.path}: no region raises the score of {', '.join(empty)}, so the map is empty.")
            words = explanation.endings(model.findings)
            for name in chosen:
                made.append(self.maps / place.parent / f"{place.name}-{words[name]}.png")
                saliency.save_png(saliency.overlay(image.pixels, found.heat(name)), made[-1])
        if self.sheet:
            alone = self.sheet.suffix.lower() == ".svg"
            made.append(self.sheet if alone else self.sheet / place.parent / f"{place.name}.svg")
            tiles = saliency.saliency_tiles(image.pixels, found, probabilities, high)
            saliency.save_tile_sheet(tiles, one.path.name, self._foot(found, bool(high)), made[-1])
        return made

    def _foot(self, found: explanation.FileSaliency, framed: bool) -> str:
        """The line below a sheet."""
        high, wide = found.maps.shape[1:]
        foot = (
            f"{self.opened.spec.name} · saliency maps ({self.map_method.name}, {high} × {wide} cells) and probabilities"
        )
        foot += " · maps without colour: no region raises the score" * bool(found.empty)
        return (
            foot
            + f" · framed: probability ≥ threshold ({self.rule or DEFAULT_RULE})" * framed
            + " · for research use only"
        )

    def _boxes(self, one: FilePrediction, place: Path, say: Callable[[str], None]) -> list[Path]:
        """The boxes of a file: an image for each finding that has any."""
        assert self.maps
        image, made = self.decoded.read(one.path), []
        words = explanation.endings(self.opened.spec.findings)
        for name in dict.fromkeys(box.finding for box in one.boxes):
            if self.findings and name not in self.findings:
                continue
            own = [box.sides for box in one.boxes if box.finding == name]
            made.append(self.maps / place.parent / f"{place.name}-{words[name]}.png")
            saliency.save_png(saliency.with_boxes(image.pixels, own), made[-1])
        return made

    def check(self, paths: Sequence[Path], say: Callable[[str], None] = print) -> None:
        """Print the rank correlation of the maps with those of the same network with random weights."""
        assert isinstance(self.opened, Classifier)
        images = [self.decoded.read(path, self.opened.spec.stored) for path in paths[:CHECKED]]
        squares = [explanation.stored_square(each, self.opened.spec) for each in images]
        found = sanity.map_likeness(self.opened, squares, map_method=self.map_method)
        for line in sanity_lines(found, self._coarse(found.grid)):
            say(line)


def _written(made: Sequence[Path]) -> str:
    """The last line about the files."""
    if len(made) == 1:
        return f"Wrote {made[0]}."
    return f"Wrote {len(made):,} files" + (f" (first: {made[0]})." if made else ".")
