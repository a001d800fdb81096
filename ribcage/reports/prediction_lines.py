"""Predictions of image files as lines of text: one line per probability row or box, a legend, and counts."""

from collections.abc import Iterator
from dataclasses import dataclass

from ribcage.bundle.spec import DEFAULT_RULE, HALF, ModelSpec
from ribcage.data.index import SIDES
from ribcage.inference import image_files, input_files
from ribcage.inference.file_predictions import FileBox, FilePrediction, FilePredictions, path_text
from ribcage.inference.sanity import ALIKE, Likeness
from ribcage.runtime import terminal
from ribcage.runtime.spelling import count_phrase

FEW = 6
"""Up to so many findings are all shown on a line; of more, those that reach their threshold and the most probable."""
NEXT = 3
"""How many of the most probable others."""
SHOWN = 20
"""Files printed where the predictions are also written to a table, besides unusual and unreadable ones."""
KINDS = 6
"""Kinds of skipped files that are named."""


@dataclass(frozen=True)
class PredictionLines:
    """How a model's predictions are printed."""

    model: ModelSpec
    rule: str = ""
    """Rule of the thresholds; empty: the default one."""
    notes: bool = False
    """Print how each file was read."""
    table: str = ""
    """The file that all predictions are written to; of long ones only the beginning is printed then."""

    def of_files(self, found: FilePredictions) -> Iterator[str]:
        """The lines of every file."""
        hidden = 0
        for number, one in enumerate(found.files):
            if self.table and number >= SHOWN and not (one.error or one.context.image_warnings):
                hidden += 1
                continue
            yield from self._of_file(one)
        if hidden:
            yield f"… {count_phrase(hidden, 'more file is', 'more files are')} listed in {self.table}."

    def _of_file(self, one: FilePrediction) -> list[str]:
        path = terminal.plain_line(path_text(one.path))
        if one.error:
            return [f"! {one.error}" if path in one.error else f"! {path}: {one.error}"]
        if self.model.detector:
            lines = [f"{path}  {_box_text(box)}" for box in one.boxes] or [f"{path}  no box"]
        else:
            lines = [f"{path}  {self._probabilities(one)}"]
        lines += [f"    warning: {one.context.image_warnings}"] if one.context.image_warnings else []
        return lines + ([f"    decoding: {one.context.notes or 'no conversion'}"] if self.notes else [])

    def _probabilities(self, one: FilePrediction) -> str:
        """All of a few findings; of many those that reach their threshold, the next, and how many more there are."""
        findings = self.model.findings
        values, high, kept = one.probabilities, one.reached, list(findings)
        if len(findings) > FEW:
            ordered = sorted(findings, key=lambda name: -values[name])
            kept = [name for name in ordered if name in high]
            kept += [name for name in ordered if name not in high][:NEXT]
        line = "  ".join(f"{name} {values[name]:.3f}{'*' * (name in high)}" for name in kept)
        more = len(findings) - len(kept)
        return line + (f"  … {more} more" if more else "")

    def legend(self) -> list[str]:
        """What a star means, and which findings have no threshold."""
        if self.model.detector:
            return []
        cuts = image_files.cuts(self.model, self.rule)
        unknown = [name for name, cut in zip(self.model.findings, cuts, strict=True) if cut is None]
        if len(unknown) == len(cuts):
            return [
                "The model has no thresholds, so no finding is marked. Pass --rule half to mark probabilities ≥ 0.5."
            ]
        rule = self.rule or DEFAULT_RULE
        star = "* probability ≥ 0.5"
        star = star if rule == HALF else f"* probability ≥ threshold ({rule}, chosen on validation images)"
        return [star] + ([f"There is no threshold for {', '.join(unknown)}."] if unknown else [])


def counts_line(found: FilePredictions) -> str:
    """How many files were predicted, how many of them are unusual, how many could not be read."""
    total, good = len(found.files), len(found.readable)
    unusual = sum(bool(one.context.image_warnings) for one in found.files)
    line = f"{good:,} of {count_phrase(total, 'file')} predicted"
    line += f", {unusual:,} of them with warnings" if unusual else ""
    return line + (f"; {total - good:,} of {count_phrase(total, 'file')} could not be read." if good < total else ".")


def skipped_line(found: input_files.InputFiles) -> str:
    """How many files were skipped, and what kinds they are by their names."""
    kinds = ", ".join(f"{count:,} × {ending}" for ending, count in found.endings[:KINDS])
    more = ", …" if len(found.endings) > KINDS else ""
    several = count_phrase(found.others, "file")
    verb = "was" if found.others == 1 else "were"
    formats = "PNG, JPEG, TIFF, BMP or DICOM"
    return f"{several} ({kinds}{more}) {verb} skipped, because the first bytes are not those of {formats} files."


def _box_text(box: FileBox) -> str:
    sides = "  ".join(f"{name} {value:.1f}" for name, value in zip(SIDES, box.sides, strict=True))
    return f"{box.finding} {box.score:.3f}  {sides}"


def sanity_lines(found: Likeness, coarse: str) -> Iterator[str]:
    """How similar maps are under random weights, as a table, and what follows.

    coarse: a warning about maps with few cells; empty for none.
    """
    yield (
        f"Rank correlation between these maps and the maps of networks with randomised weights (1 = identical "
        f"ranking), for "
        f"{count_phrase(found.images, 'image')} and {count_phrase(found.draws, 'randomisation')}:"
    )
    wide = max(map(len, (*found.findings, "mean")))
    yield f"{'':{wide}}  last layer  all layers"
    for name, *values in zip(found.findings, found.head, found.network, strict=True):
        yield f"{name:{wide}}" + "".join(f"{'–' if value != value else f'{value:.2f}':>12}" for value in values)
    if unchanged := found.independent_of_weights():
        yield (
            f"! The maps for {', '.join(unchanged)} hardly change when the weights are randomised (correlation ≥ "
            f"{ALIKE:g}), so these maps depend on the image and do not explain the model."
        )
    elif coarse:
        yield f"! {coarse} With so few cells, this check is not informative."
    elif found.known:
        yield "The saliency maps depend on the trained weights."
    else:
        yield "All maps are empty, because no region raises the score of any finding. Try other images."
