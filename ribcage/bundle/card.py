"""Card: what a person should know of a model before using it, written from its facts."""

from collections.abc import Sequence
from typing import Any

from ribcage.bundle import history
from ribcage.bundle.history import PastTest
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.weights import timm_options
from ribcage.runtime import terminal

MARKUP = str.maketrans({letter: f"\\{letter}" for letter in "\\`*[]|"} | {"<": "&lt;", ">": "&gt;"})
"""What Markdown would act upon."""
LONGEST = 300


def text(value: object) -> str:
    """Text from a file as Markdown shows it: a line, no markup, no HTML."""
    said = terminal.line(" ".join(str(value).split()))
    return (said if len(said) <= LONGEST else f"{said[: LONGEST - 2]} …").translate(MARKUP)


def write(spec: ModelSpec, *, plain: bool = True, unknown: Sequence[str] = ()) -> str:
    """The card as Markdown, from the spec; plain: the weights fit timm's model of this name; unknown:
    whom it has learnt from without anybody knowing what these have seen."""
    name, findings, trained = spec.name, spec.findings, spec.training
    (height, width), channels = spec.size, spec.channels
    square = f"made square ({spec.fit}) at {spec.stored} px, resized to {height} × {width}"
    lines = [
        _title(spec),
        "",
        "**Research use only.** Not a medical device; not evaluated for any patient.",
        "",
        *_made_up(spec),
        f"Findings: {', '.join(map(text, findings))}."
        if findings
        else "A backbone without a head" + ("." if spec.converted else f", learnt by {text(trained['method'])}."),
        *_detector(spec),
        "",
        "## Data",
        "",
        *(_source(one) for one in spec.data),
        *(_taken(trained) if spec.converted else _learnt(spec)),
        *_fitted(trained),
        *_teachers(trained.get("teachers", []), unknown),
        "",
        "## An image on its way in",
        "",
        f"Gray, {square}, {_scaled(spec)}; {channels} channel{'s' * (channels > 1)}.",
        "",
        *(_untested() if spec.converted and not spec.metrics else _validation(spec) if findings else _features(spec)),
        *_limits(spec),
        *_given_away(spec),
        "## Use",
        "",
        "```python",
        *(_of_detector() if spec.detector else _of_timm(spec) if plain else _of_ribcage(name)),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _made_up(spec: ModelSpec) -> list[str]:
    return [f"**{spec.warning}**", ""] if spec.warning else []


def _learnt(spec: ModelSpec) -> list[str]:
    """From how many images, and what of that is not as it should be."""
    trained = spec.training
    said = f"- learnt from {trained['images']:,} images of {_patients(trained['patients'])}"
    said += f" with {trained['boxes']:,} boxes" if "boxes" in trained else ""
    said += f", chosen by {trained['selection']:,} others" if spec.findings else ""
    shared = trained.get("shared_patients", 0)
    flattered = f"- **{shared:,} patients are among both**: validation flatters the model"
    leak = f"- **Chosen dishonestly**: {text(trained.get('leak'))}"
    return [said] + [flattered] * bool(shared) + [leak] * bool(trained.get("leak"))


def _patients(known: int) -> str:
    """How many patients are known."""
    return f"{known:,} known patient{'s' * (known != 1)}" if known else "unknown patients"


def _taken(trained: dict[str, Any]) -> list[str]:
    """Of weights that somebody published: the file, and what is not known of it."""
    layout = f", in the layout of {text(trained['layout'])}" if trained["layout"] else ""
    said = [f"- weights as published{layout}: {text(trained['file'])} (SHA-256 {trained['sha256'][:16]} …)"]
    agreed = " and by --layout" * bool(trained.get("agreed"))
    said += [f"- recognised by {text(trained['evidence'])}{agreed}"] if "evidence" in trained else []
    said += [f"- {text(claim)}" for claim in trained.get("claims", ())]
    rows = "- **what its rows answer is taken from their number and the layout's order**: the file does not say it"
    said += [rows] * bool(trained.get("counted"))
    random = trained.get("random", [])
    lacking = f"- **{len(random)} weights were not in it and are random** ({text(random[0]) if random else ''} …)"
    return said + [lacking] * bool(random)


def _fitted(trained: dict[str, Any]) -> list[str]:
    """What temperature and thresholds were chosen by, when that was done after all else."""
    where = ", ".join(map(text, trained.get("fitted_to", ())))
    return [f"- temperature and thresholds fitted to {trained['fitted']:,} images of {where}"] if where else []


def _scaled(spec: ModelSpec) -> str:
    """How pixels become what the model sees."""
    if not spec.colours:
        return f"scaled to 0 … 1, then (x − {spec.mean:g}) / {spec.std:g}"
    means, stds = (", ".join(f"{one:g}" for one in values) for values in spec.colours)
    return f"scaled to 0 … 1, the same in each channel, then (x − m) / s with m = ({means}) and s = ({stds})"


def _untested() -> list[str]:
    """Of published weights: what is said of them elsewhere is not repeated."""
    said = "None are known here: its authors' own are of other images. `ribcage evaluate` on a test part gives some."
    return ["## Figures", "", said, ""]


def _limits(spec: ModelSpec) -> list[str]:
    """What nobody should expect of it, and whose terms it is under."""
    views = "frontal views alone" if spec.training.get("options", {}).get("frontal") else ""
    licences = ", ".join(dict.fromkeys(f"{text(one['licence'])} ({text(one['name'])})" for one in spec.data))
    calibrated = "fitted to validation" if spec.temperature else "not calibrated: no temperature was fitted"
    said = [
        "For images prepared as above. Of machines, ages, views and places other than its data's nothing is known.",
        f"It has learnt from {views}." if views else "",
        f"Probabilities are {calibrated}." if spec.findings and not spec.detector else "",
        f"The terms of what it learnt from hold: {licences}." if licences else "",
    ]
    return ["## Limits", "", *(f"- {one}" for one in said if one), ""]


def _given_away(spec: ModelSpec) -> list[str]:
    """What who shares the folder tells others of the data."""
    if spec.converted:
        return []
    said = [
        "`provenance.npz` holds a fingerprint of every image that it has seen and a hash of every patient: who has "
        "such an image can find out that it was among them.",
        "Numbers of patients of published data can be found out from their hashes; those of other data are hashed with "
        "a key that only their site has (docs/fingerprints.md).",
        "Weights remember: whether an image was learnt from can be guessed from them alone, better than by chance.",
    ]
    return ["## What sharing it gives away", "", *(f"- {one}" for one in said), ""]


def tested(card: str, result: dict[str, Any], tests: Sequence[PastTest]) -> str:
    """The card with the list of all tests, and of each name and split all numbers of the best-documented honest one."""
    newest = tests[-1] if tests else None
    card = _placed(card, "tests", _history(tests)) if tests else card
    if newest is None or not newest.honest or newest.metric == "mAP":
        return card
    name = text(f"{newest.name}, split {newest.split}")
    kept = history.best(tests, newest)
    if kept.number != newest.number and f"<!-- tested: {name} -->" in card:
        return card
    return _placed(card, f"tested: {name}", _test(name, newest, result))


def _placed(card: str, mark: str, lines: Sequence[str]) -> str:
    """The card with a section in the place of the one that is marked alike, else before its limits."""
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    section = "\n".join([start, *lines, end, ""]) + "\n"
    if start in card and end in card.split(start, 1)[1]:
        before, rest = card.split(start, 1)
        return before + section + rest.split(end, 1)[1].lstrip("\n")
    return card.replace("## Limits\n", section + "## Limits\n", 1) if "## Limits\n" in card else f"{card}\n{section}"


SHOWN = 50
"""Tests in the list, the newest of them."""


def _history(tests: Sequence[PastTest]) -> list[str]:
    """Every test of the model: on what, how, with what result, and what was new in it."""
    rows = [
        [
            str(one.number),
            text(f"{one.name}, {one.split}" + f" ({one.options})" * bool(one.options)),
            one.key[:6],
            f"{one.images:,}",
            f"{one.patients:,}" if one.patients else "–",
            f"{one.metric} {_span({'value': one.value, 'low': one.low, 'high': one.high})}",
            history.new(one, tests[:place]) + "; **not honest**" * (not one.honest),
        ]
        for place, one in enumerate(tests)
    ]
    most = max(len(history.use(tests, one.contents, one.split)) for one in tests)
    said = (
        f"{len(tests):,} test{'s' * (len(tests) != 1)}; the data used most was used {most:,} time{'s' * (most != 1)}."
    )
    said += " Whoever chooses among results of one test set is flattered by the best." * (most > 1)
    return [
        "## Tests",
        "",
        said,
        "",
        *_rows(["test", "data", "key", "images", "known patients", "result", "what is new"], rows[-SHOWN:]),
    ]


def _test(name: str, test: PastTest, result: dict[str, Any]) -> list[str]:
    """What a test has found: every number with its interval."""
    rates, mean = ("auroc", "sensitivity", "specificity"), result["macro"]["auroc"]
    rows = [
        [text(row["finding"]), f"{row['positives']:,} of {row['n']:,}", *(_span(row[rate]) for rate in rates)]
        for row in result["findings"]
    ]
    groups = [
        [
            text(f"{row['by']} {row['group']}"),
            f"{row['images']:,}",
            _span(row["macro"]["auroc"]),
            str(row["macro"]["auroc"]["findings"]),
            _gap(row["gap"]) if "gap" in row else "–",
        ]
        for row in result["subgroups"]
    ]
    return [
        f"## Test: {name}",
        "",
        f"Test {test.number}: {result['images']:,} images of {_patients(result['patients'])}; "
        f"{_mean(mean, len(rows))}. Intervals: {result['level']:.0%}, over patients. Thresholds: "
        f"{result['rule']}.",
        "",
        *(f"- {text(stamp)}" for stamp in result["stamps"]),
        *([""] if result["stamps"] else []),
        *_rows(["finding", "present", "AUROC", "sensitivity", "specificity"], rows),
        *(
            _rows(["subgroup", "images", "mean AUROC", "of findings", "difference to all others"], groups)
            if groups
            else []
        ),
    ]


def _mean(value: dict[str, Any], findings: int) -> str:
    """The mean AUROC; of one finding it is no mean."""
    return f"AUROC {_span(value)}" if findings == 1 else f"mean AUROC {_span(value)} of {value['findings']} findings"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)] + [""]


def _span(value: dict[str, Any]) -> str:
    """A number with its interval; what is undefined is –."""
    shown = ["–" if value[key] is None else f"{value[key]:.3f}" for key in ("value", "low", "high")]
    return shown[0] if shown[1] == "–" else f"{shown[0]} ({shown[1]}–{shown[2]})"


def _gap(value: dict[str, Any]) -> str:
    """A difference with its interval and its findings."""
    shown = ["–" if value[key] is None else f"{value[key]:+.3f}" for key in ("value", "low", "high")]
    return shown[0] if shown[1] == "–" else f"{shown[0]} ({shown[1]} to {shown[2]}) of {value['findings']}"


def _title(spec: ModelSpec) -> str:
    """What it is, in a line."""
    name, count = spec.name, len(spec.findings)
    if not count:
        return f"# {name}, {'as published' if spec.converted else 'pretrained on chest radiographs'}"
    some = f"{count} finding{'s' * (count != 1)}"
    if spec.detector:
        return f"# {name} that finds boxes of {some} on chest radiographs"
    return f"# {name} for {some} on chest radiographs"


def _detector(spec: ModelSpec) -> list[str]:
    """Of what finds boxes: how, and what its scores are not."""
    own = dict(spec.detector)
    head = own.pop("head", "")
    if not head:
        return []
    how = {
        "cam": "A classifier: boxes lie around what speaks for a finding, learnt from no box (Grad-CAM)",
        "fcos": "Boxes by FCOS on a pyramid of maps",
        "yolo": "Boxes by YOLOv3's head on three scales",
    }[head]
    cuts = [f"{one:.3f}" if one is not None else "–" for one in spec.thresholds.get("f1", [])]
    shown = f" Shown from a score of {', '.join(cuts)} (highest F1 at IoU .40 on validation)." if cuts else ""
    options = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in own.items())
    return ["", f"{how} ({options}). Scores are no probabilities.{shown}"]


def _source(one: dict[str, Any]) -> str:
    """A data set in a line."""
    before = ", before that" if one.get("before") else ""
    evidence = f"; {text(one['evidence'])}" if isinstance(one.get("evidence"), str) else ""
    return f"- {text(one['name'])}{before}: {text(one['source'])} (licence: {text(one['licence'])}){evidence}"


def _teachers(lessons: list[dict[str, Any]], unknown: Sequence[str]) -> list[str]:
    """Whom it learnt from, and of whom it is not known what they have seen."""
    said = ", ".join(map(_named, lessons))
    names = " and ".join(map(text, unknown))
    blind = f"- **What {names} has learnt from is not known**: if it were test images, a test would flatter the model"
    return [f"- taught by {said}"] * bool(said) + [blind] * bool(names)


def _named(teacher: dict[str, Any]) -> str:
    """Who taught: a model with how much it knows, a table with what it speaks of."""
    if teacher["table"]:
        return f"the table {text(teacher['name'])} ({', '.join(map(text, teacher['findings']))})"
    count = len(teacher["findings"])
    return f"{text(teacher['name'])} ({count} finding{'s' * (count != 1)})"


def _validation(spec: ModelSpec) -> list[str]:
    chosen = "Temperature and thresholds were" if "fitted" in spec.training else "The model was"
    said = f"{chosen} chosen on these images: the numbers flatter. `ribcage evaluate` on a test part gives honest ones."
    scores = spec.metrics.get("validation", {})
    return ["## Validation", "", *(_precisions(scores) if "map" in scores else _table(spec, scores)), "", said, ""]


def _features(spec: ModelSpec) -> list[str]:
    """What was seen of the features in the end."""
    found = spec.metrics.get("features", {})
    rows = [f"| {name} | {value:.3f} |" for name, value in found.items()]
    return ["## Features", "", "| | |", "|---|---|", *rows, ""] if rows else []


def _of_timm(spec: ModelSpec) -> list[str]:
    """The lines that open the weights without Ribcage, or nearly so."""
    name, channels, count = spec.name, spec.channels, len(spec.findings)
    more = timm_options(name, spec.size, spec.pool)
    said = "".join(
        f', {key}="{value}"' if isinstance(value, str) else f", {key}={value}" for key, value in more.items()
    )
    return [
        *(["import ribcage.models.architectures  # which makes this one known to timm"] if _ours(name) else []),
        "import timm, safetensors.torch",
        f'model = timm.create_model("{name}", in_chans={channels}, num_classes={count}{said})',
        'model.load_state_dict(safetensors.torch.load_file("model.safetensors"))',
    ]


def _of_ribcage(name: str) -> list[str]:
    """The lines for an architecture whose head in timm is another."""
    return [
        f"from ribcage.bundle.io import load_bundle  # timm's own {name} has another head",
        'opened = load_bundle(".")  # this folder',
        "model = opened.method  # model.logits(images) are its answers, model.backbone(images) its features",
    ]


def _of_detector() -> list[str]:
    """The lines for what finds boxes."""
    return [
        "from ribcage.bundle.io import load_detector",
        "from ribcage.inference import gradcam",
        'opened = load_detector(".")  # this folder',
        "found = gradcam.finder(opened).found(images)  # of each: boxes x0, y0, x1, y1 in pixels, findings, scores",
    ]


def _ours(name: str) -> bool:
    """Whether the architecture is not timm's but the project's."""
    import timm

    return timm.model_entrypoint(name.split(".")[0]).__module__.startswith("ribcage.")


def _table(spec: ModelSpec, scores: dict[str, float]) -> list[str]:
    """Of every finding that is judged, and of their mean."""
    fared = dict(zip(spec.findings, spec.observed, strict=False))  # an older model has kept none
    named = {name.removeprefix("auroc_"): score for name, score in scores.items() if name.startswith("auroc")}
    rows = [
        ["mean" if name == "auroc" else text(name), *_fared(score, fared.get(name))]
        for name, score in named.items()
        if name != "auroc" or len(spec.findings) > 1
    ]
    return _rows(["finding", "present", "AUROC"], rows)[:-1]


def _fared(score: float, one: dict[str, Any] | None) -> tuple[str, str]:
    """How many images have a finding, of how many where that is known; the AUROC with its 95 % interval."""
    if one is None:
        return "–", f"{score:.3f}"
    value, low, high = one["auroc"]
    reach = "" if low is None or high is None else f" ({low:.3f}–{high:.3f})"
    return f"{one['positives']:,} of {one['images']:,}", f"{value:.3f}{reach}"


def _precisions(scores: dict[str, float]) -> list[str]:
    """Of a detector."""
    named = {"map": "mean", "ap50": "mean, IoU .50 alone", "ap75": "mean, IoU .75 alone"}
    rows = [f"| {text(named.get(name, name.removeprefix('map_')))} | {score:.3f} |" for name, score in scores.items()]
    return ["| finding | AP over IoU .40:.05:.75 |", "|---|---|", *rows]
