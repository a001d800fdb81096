"""Predict findings in image files: PNG, JPEG, TIFF, BMP or DICOM; files, folders, or patterns.

A classifier gives a calibrated probability for every finding and marks those that reach their threshold; a detector
gives boxes in the pixels of the file. Warnings about unusual images are shown beside the predictions. Files that
cannot be read are listed, and the others are predicted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

POSITIONAL = ("model", "paths")
EXAMPLES = ("predict runs/chexnet /data/new --out predictions.csv", "predict runs/chexnet scan.dcm --maps maps")
FEW = 6
"""So many findings are all shown on a line; of more, those that reach their threshold and the likeliest others."""
NEXT = 3
"""How many of the likeliest others."""
SHOWN = 20
"""Files shown of those in a table, beside the ones that are unusual or cannot be read."""
KINDS = 6
"""Kinds of files named of those that were passed over."""
CHECKED = 16
"""Images that --check-maps looks at, at most."""


@dataclass(frozen=True)
class Options:
    """Whom to ask about what."""

    model: Path
    """A run or model folder."""
    paths: tuple[Path, ...]
    """Files, folders, or patterns such as 'inbox/**/*.dcm'."""
    out: Path | None = None
    """Write the predictions to this table (.csv or .parquet)."""
    threshold: str = ""
    """Rule of the classifier's thresholds: youden, midpoint, f1, sensitivity_95, specificity_95, or half (default:
    youden, if the model has it)."""
    ten_crop: bool = False
    """Average the probabilities of ten crops of each image; classifiers only."""
    maps: Path | None = None
    """Write saliency maps, or the images with a detector's boxes, to this folder, in the pixels of the file."""
    map_findings: tuple[str, ...] = ()
    """Findings to map (default: those that reach their threshold, else the most probable)."""
    map_method: Literal["gradcam", "layercam", "occlusion"] = "gradcam"
    """Method of the saliency maps; layercam suits earlier layers, occlusion covers one square at a time and is slow."""
    map_layer: int = 0
    """Layer of the maps, counted back from the last: 0 is the last, 1 the last one with a finer grid …"""
    sheet: Path | None = None
    """Write a sheet with the maps of all findings: one .svg file, or a folder for several files."""
    check_maps: bool = False
    """Sanity check: compare the maps with those of the same network with random weights; similar maps are not
    explanations."""
    notes: bool = False
    """Print how each file was read."""
    min_score: float | None = None
    """Detectors: lowest score of a box (default: each finding's score threshold from validation)."""
    window: str = ""
    """DICOM window: the explanation of a window, such as LUNG, or CENTRE,WIDTH (default: the file's own,
    docs/datasets.md)."""
    allow_unread: str = "0"
    """How many files may be unreadable before the exit code is 3: a number, a share such as 5%, or all."""
    batch: int = 16
    """Files per batch."""


def run(options: Options) -> Any:
    """Open, ask, write, show, explain; return the table."""
    from ribcage.bundle import ood
    from ribcage.bundle.io import find_bundle, load_classifier, load_detector
    from ribcage.bundle.spec import ModelSpec
    from ribcage.inference import image_files, predictions
    from ribcage.runtime import limits

    model = ModelSpec.load(find_bundle(options.model) / "model.json")
    found = image_files.files(options.paths, [place for place in (options.maps, options.sheet) if place])
    limits.check(options, [*wrong(options, len(found.images)), *unfit(options, model)])
    if found.others:
        print(passed_over(found))
    asked: Any = {"batch": options.batch, "window": options.window}
    asked["label"] = "predict" if len(found.images) > options.batch else ""
    if model.detector:
        least = chosen(model, options.min_score)
        opened: Any = load_detector(options.model)
        table = image_files.boxes(opened, found.images, least=least, **asked)
    else:
        opened, cuts = load_classifier(options.model), image_files.cuts(model, options.threshold)
        table = image_files.probabilities(opened, found.images, ten_crop=options.ten_crop, thresholds=cuts, **asked)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        predictions.save(table, options.out)
        print(f"Wrote {options.out}.")
    show(table, options, model, ood.weakness(opened.ood))
    bad = set(table.loc[table["error"] != "", "path"])
    paths = [path for path in found.images if image_files.written(path) not in bad]
    if options.maps or options.sheet:
        explain(options, opened, table, paths)
    if options.check_maps:
        compare(opened, paths, way(options), options.window)
    return table


def exit_code(options: Options, table: Any) -> int:
    """3 where more files could not be read than --allow-unread says."""
    from ribcage.runtime import limits

    said = errors(table)
    return 3 if sum(map(bool, said)) > limits.tolerated(options.allow_unread, len(said)) else 0


# ---- what cannot be


def wrong(options: Options, files: int) -> list[str]:
    """What no model can be asked."""
    from ribcage.imaging.dicom import gray
    from ribcage.runtime import limits

    said = limits.intolerable("--allow-unread", options.allow_unread)
    try:
        gray.asked(options.window)
    except ValueError as error:
        said.append(str(error).rstrip("."))
    if options.min_score is not None and not 0 <= options.min_score <= 1:
        said.append(f"--min-score {options.min_score:g} is not from 0 to 1")
    if options.out and options.out.suffix not in (".csv", ".parquet"):
        said.append(f"--out {options.out} is neither .csv nor .parquet")
    if options.map_findings and not options.maps:
        said.append("--of names the findings of --maps, which is not given")
    if options.map_layer < 0:
        said.append(f"--map-layer {options.map_layer} is not 0 or more")
    if options.map_layer and options.map_method == "occlusion":
        said.append("--map-layer is of gradcam and layercam, and occlusion looks into no layer")
    if options.sheet and options.sheet.suffix.lower() == ".svg" and files > 1:
        said.append(f"--sheet {options.sheet} is one sheet, and there are {files:,} files: name a folder")
    if options.sheet and options.sheet.suffix.lower() in (".png", ".jpg", ".jpeg", ".pdf", ".html"):
        said.append(f"--sheet {options.sheet} is neither a folder nor a file that ends in .svg")
    return said


def unfit(options: Options, model: Any) -> list[str]:
    """What this model cannot be asked."""
    from ribcage.bundle.spec import HALF
    from ribcage.runtime import spelling

    said = [
        f"--map-findings {name}: the model does not know it.{spelling.did_you_mean(name, model.findings)}".rstrip(".")
        for name in options.map_findings
        if name not in model.findings
    ]
    if model.detector:
        of_classifiers = {
            "--threshold": options.threshold, "--ten-crop": options.ten_crop, "--sheet": options.sheet,
            "--check-maps": options.check_maps, "--map-layer": options.map_layer,
            "--map-method": options.map_method != "gradcam",
        }  # fmt: skip
        named = [name for name, given in of_classifiers.items() if given]
        return said + ([f"{', '.join(named)}: of a classifier, and {options.model} finds boxes"] if named else [])
    if options.min_score is not None:
        said.append(f"--min-score is of a detector's boxes, and {options.model} gives probabilities")
    rules = (*model.thresholds, HALF)
    if options.threshold and options.threshold not in rules:
        said.append(f"--threshold {options.threshold}: the model has {', '.join(rules)}")
    return said


def chosen(model: Any, least: float | None) -> list[float]:
    """The least score of a box of each finding: the one asked for, or validation's."""
    from ribcage.inference import image_files

    if least is not None:
        return [least] * len(model.findings)
    cuts = image_files.least_scores(model)
    if mute := [name for name, cut in zip(model.findings, cuts, strict=True) if cut == float("inf")]:
        print(f"No box of {', '.join(mute)} is shown: validation found no score to trust. --min-score X shows them.")
    return cuts


# ---- what is printed


def passed_over(found: Any) -> str:
    """How many files were not asked about, and which kinds they are by their names."""
    kinds = ", ".join(f"{count:,} × {ending}" for ending, count in found.endings[:KINDS])
    more = ", …" if len(found.endings) > KINDS else ""
    several = "1 file was" if found.others == 1 else f"{found.others:,} files were"
    return f"{several} passed over ({kinds}{more}): not PNG, JPEG, TIFF, BMP or DICOM by their first bytes."


def show(table: Any, options: Options, model: Any, weakness: str) -> None:
    """Lines for every file, and at the end how many were answered; of a table that is kept only the first, and what is
    unusual."""
    from ribcage.runtime import terminal

    hidden = 0
    for number, (path, rows) in enumerate(table.groupby("path", sort=False)):
        several = rows.assign(path=terminal.line(path)).to_dict("records")
        unusual = several[0]["error"] or several[0]["remarks"]
        if options.out and number >= SHOWN and not unusual:
            hidden += 1
            continue
        for line in lines(several, model, options.notes):
            print(line)
    if hidden:
        print(f"… {hidden:,} more files are in {options.out}.")
    said = errors(table)
    bad = sum(map(bool, said))
    if bad == len(said):
        raise ValueError("No file could be read.")
    for line in legend(table, options, model):
        print(line)
    print(counts(table, len(said), bad))
    if exit_code(options, table):
        print("The exit code is 3 for that; --allow-unread N, N% or all accepts it.")
    if weakness:
        print(weakness)
    if model.warning:
        print(f"WARNING: {model.warning}")


def errors(table: Any) -> list[str]:
    """What is wrong with each file, or nothing."""
    return [str(error) for error in table.groupby("path", sort=False)["error"].first()]


def lines(rows: Sequence[dict[str, Any]], model: Any, notes: bool) -> list[str]:
    """What is said of a file."""
    first = rows[0]
    path, error = first["path"], first["error"]
    if error:
        return [f"! {error}" if path in error else f"! {path}: {error}"]
    said = [box(row) for row in rows] if "finding" in first else [probable(first, model.findings)]
    said += [f"    unusual: {first['remarks']}"] if first["remarks"] else []
    return said + ([f"    done: {first['notes'] or 'nothing'}"] if notes else [])


def probable(row: dict[str, Any], findings: Sequence[str]) -> str:
    """A line of probabilities: all of a few findings; of many, the crossed ones, the next, and how many more."""
    crossed, kept = crossing(row, findings), list(findings)
    if len(findings) > FEW:
        ordered = sorted(findings, key=lambda name: -row[name])
        kept = [name for name in ordered if name in crossed]
        kept += [name for name in ordered if name not in crossed][:NEXT]
    said = "  ".join(f"{name} {row[name]:.3f}{'*' * (name in crossed)}" for name in kept)
    more = len(findings) - len(kept)
    return f"{row['path']}  {said}" + (f"  … {more} more" if more else "")


def crossing(row: dict[str, Any], findings: Sequence[str]) -> list[str]:
    """The findings that reach their threshold, as far as that is known."""
    from ribcage.inference.image_files import CROSSED

    return [name for name in findings if row[name + CROSSED] is True]


def rule(options: Options) -> str:
    """By which the thresholds were chosen."""
    from ribcage.bundle.spec import DEFAULT_RULE

    return options.threshold or DEFAULT_RULE


def box(row: dict[str, Any]) -> str:
    """A line of a box."""
    if not row["finding"]:
        return f"{row['path']}  no box"
    sides = "  ".join(f"{name} {row[name]:.1f}" for name in ("x", "y", "width", "height"))
    return f"{row['path']}  {row['finding']} {row['score']:.3f}  {sides}"


def legend(table: Any, options: Options, model: Any) -> list[str]:
    """What a star means, and for which findings nothing can be said."""
    from ribcage.bundle.spec import HALF
    from ribcage.inference import image_files

    if model.detector:
        return []
    cuts = image_files.cuts(model, options.threshold)
    unknown = [name for name, cut in zip(model.findings, cuts, strict=True) if cut is None]
    if len(unknown) == len(cuts):
        return ["The model has no thresholds: what is high for a finding is not known. --threshold half takes 0.5."]
    half = rule(options) == HALF
    star = "* 0.5 or more" if half else f"* reaches its threshold ({rule(options)}, chosen on validation)"
    return [star] + ([f"No threshold is known of {', '.join(unknown)}."] if unknown else [])


def counts(table: Any, every: int, bad: int) -> str:
    """How many files were answered, were unusual, could not be read."""
    strange = table.loc[table["remarks"] != "", "path"].nunique()
    said = f"{every - bad:,} of {every:,} files answered"
    said += f", {strange:,} of them unusual" if strange else ""
    return said + (f"; {bad:,} of {every:,} files could not be read." if bad else ".")


# ---- where the model looks


def explain(options: Options, opened: Any, table: Any, paths: Sequence[Path]) -> None:
    """Write maps and sheets of files that were read; what goes wrong with one does not stop the rest."""
    from ribcage.inference import explanation, image_files
    from ribcage.runtime import progress

    rows = {path: own.to_dict("records") for path, own in table.groupby("path", sort=False)}
    grids: list[tuple[int, int]] = []
    draw: Any = with_boxes if opened.spec.detector else partial(with_maps, grids)
    made: list[Path] = []

    def work() -> Iterator[int]:
        for path, place in zip(paths, explanation.places(paths), strict=True):
            try:
                made.extend(draw(options, opened, rows[image_files.written(path)], path, place))
            except (ValueError, FileNotFoundError, MemoryError) as error:
                print(f"! {path} is not drawn: {' '.join(str(error).split()) or type(error).__name__}")
            yield 1

    for _ in progress.track(work(), len(paths), "draw", "files") if len(paths) > SHOWN else work():
        pass
    print(f"Wrote {len(made):,} {'file' if len(made) == 1 else 'files'}{f', such as {made[0]}' if made else ''}.")
    for grid in dict.fromkeys(grids):
        print(fineness(options, opened, grid))


def way(options: Options) -> Any:
    """How maps are made."""
    from ribcage.inference import gradcam

    return gradcam.Way(options.map_method, options.map_layer)


def fineness(options: Options, opened: Any, grid: tuple[int, int]) -> str:
    """How fine maps with these cells are, and whether that is enough."""
    from ribcage.inference import gradcam

    coarse = gradcam.coarseness(opened.method.backbone, grid, opened.spec.size, way(options))
    return f"! {coarse}" if coarse else f"Maps by {way(options).name}: {grid[0]} × {grid[1]} cells."


def with_maps(
    grids: list[tuple[int, int]], options: Options, opened: Any, rows: Sequence[dict[str, Any]], path: Path, place: Path
) -> list[Path]:
    """The maps and the sheet of a file, as they were asked for."""
    from ribcage.imaging import image_file
    from ribcage.inference import explanation
    from ribcage.reports import saliency

    read = image_file.read_image(path, window=options.window)
    found, said = explanation.look(opened, read, way(options)), {name: rows[0][name] for name in opened.spec.findings}
    crossed, made = crossing(rows[0], opened.spec.findings), []
    high, wide = found.maps.shape[1:]
    grids.append((high, wide))
    if options.maps:
        asked = options.map_findings or crossed or (max(said, key=lambda name: said[name]),)
        if empty := [name for name in asked if name in found.empty]:
            print(f"{path}: nothing speaks for {', '.join(empty)}, so there is no colour in the map.")
        words = explanation.endings(opened.spec.findings)
        for name in asked:
            made.append(options.maps / place.parent / f"{place.name}-{words[name]}.png")
            saliency.save(saliency.overlay(read.pixels, found.heat(name)), made[-1])
    if options.sheet:
        one = options.sheet.suffix.lower() == ".svg"
        made.append(options.sheet if one else options.sheet / place.parent / f"{place.name}.svg")
        how = f"{way(options).name}, {high} × {wide} cells"
        foot = f"{opened.spec.name} · where it looks for each finding ({how}), how probable it finds it"
        foot += " · no colour: nothing speaks for it" * bool(found.empty)
        foot += f" · framed: reaches its threshold ({rule(options)})" * bool(crossed) + " · research use only"
        saliency.save_sheet(saliency.tiles(read.pixels, found, said, crossed), path.name, foot, made[-1])
    return made


def with_boxes(options: Options, opened: Any, rows: Sequence[dict[str, Any]], path: Path, place: Path) -> list[Path]:
    """The boxes of a file, an image for each finding that it has any of."""
    from ribcage.imaging import image_file
    from ribcage.inference import explanation
    from ribcage.reports import saliency

    assert options.maps
    read, made = image_file.read_image(path, window=options.window), []
    words = explanation.endings(opened.spec.findings)
    for name in dict.fromkeys(row["finding"] for row in rows if row["finding"]):
        if options.map_findings and name not in options.map_findings:
            continue
        own = [[row[side] for side in ("x", "y", "width", "height")] for row in rows if row["finding"] == name]
        made.append(options.maps / place.parent / f"{place.name}-{words[name]}.png")
        saliency.save(saliency.marked(read.pixels, own), made[-1])
    return made


def compare(opened: Any, paths: Sequence[Path], how: Any, window: str = "") -> None:
    """Say how alike the maps stay when the weights are random."""
    from ribcage.imaging import image_file
    from ribcage.inference import explanation, gradcam, sanity

    side = opened.spec.stored
    read = [image_file.read_image(path, min_side=side, window=window) for path in paths[:CHECKED]]
    squares = [explanation.square(each, opened.spec) for each in read]
    found = sanity.of(opened, squares, way=how)
    print(
        f"Rank correlation of maps with those under random weights (1: the same), {found.images:,} "
        f"{'image' if found.images == 1 else 'images'}, {found.draws} draws:"
    )
    wide = max(map(len, (*found.findings, "mean")))
    print(f"{'':{wide}}  last layer  all layers")
    for name, *values in zip(found.findings, found.head, found.network, strict=True):
        print(f"{name:{wide}}" + "".join(f"{'–' if value != value else f'{value:.2f}':>12}" for value in values))
    if stubborn := found.stubborn():
        print(
            f"! The maps of {', '.join(stubborn)} stay as they are ({sanity.ALIKE:g} or more): they show the image "
            "and not what the model has learnt."
        )
    elif coarse := gradcam.coarseness(opened.method.backbone, found.grid, opened.spec.size, how):
        print(f"! {coarse} So few cells tell little of whether maps depend on what the model has learnt.")
    elif found.known:
        print("The maps depend on what the model has learnt.")
    else:
        print("No map of these images has any heat: nothing in them speaks for a finding. Try others.")
