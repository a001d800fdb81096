"""Distil one or several teachers into a small student, with the known labels beside the teachers' predictions.

A teacher is a bundle, which predicts on the augmented image of the student at its own input size, or a table of
predictions. Unlabelled images are used as well. As in 'ribcage finetune', the validation split selects the best epoch,
the test split is not used, and --resume continues a run.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ribcage.commands import finetune

if TYPE_CHECKING:
    from ribcage.data.collection import Datasets

POSITIONAL = ()
EXAMPLES = ("distil --teacher runs/chexnet --data data/nih --model eeea_net_c2 --out runs/small",)


@dataclass(frozen=True, kw_only=True)
class Options(finetune.Options):
    """Options of distillation."""

    teacher: tuple[str, ...]
    """Teachers: bundles, run folders or tables of predictions (parquet, csv)."""
    model: str = "eeea_net_c2"
    """Architecture of the student: a timm model or one of Ribcage's own."""
    labels: float = 1.0
    """Fraction of the training patients whose labels are used; the teachers are used for all patients."""
    hard: float = 0.5
    """Weight of the label loss; the distillation loss has the rest (1 - hard)."""
    temperature: float = 2.0
    """Temperature of the distillation loss."""
    match: Literal["kl", "mse"] = "kl"
    """Distillation loss: Kullback-Leibler divergence of softened probabilities, or mean squared error of logits."""
    features: float = 0.0
    """Weight of the feature loss: 1 - cosine similarity of the student's (projected) and a teacher's features."""
    relations: float = 0.0
    """Weight of the relation loss: squared difference of the similarities between locations of the feature maps."""
    weigh: Literal["mean", "auroc"] = "mean"
    """Weights of several teachers: equal, or per finding by how far its validation AUROC is above 0.5."""
    teach: Literal["auto", "live", "stored"] = "auto"
    """When teachers predict: live, on each augmented image; stored, once on each image as it is; auto, live if images
    are augmented."""
    allow_leak: bool = False
    """Continue although a teacher was trained on images of the --val split; the card says so."""


defaults = finetune.defaults


def run(options: Options) -> Any:
    """Open the teachers, build the student, train, say what came of it; return the run folder."""
    import sys

    from ribcage.runtime import limits
    from ribcage.training import options as course
    from ribcage.training import run_folder

    options = course.settled(options)
    limits.check_options(options, wrong(options))
    run_folder.check_free(options)
    return course.run("distil", sys.modules[__name__], options, train)


def wrong(options: Options) -> list[str]:
    """What does not go together."""
    from ribcage.training import teachers

    only_tables = all(map(teachers.is_table, options.teacher))
    inside = [f"--{name}" for name in ("features", "relations") if getattr(options, name)]
    said = []
    if not options.teacher:
        said.append("--teacher names nobody")
    twice = [name for name in dict.fromkeys(options.teacher) if options.teacher.count(name) > 1]
    said += [f"--teacher names {name} twice" for name in twice]
    if options.patience and options.keep == "last":
        said.append("--patience waits for a best epoch, --keep last knows none")
    if options.micro_batch:
        said.append("--micro-batch does not go with distil: it divides by what is known, and by what is taught")
    if inside and (only_tables or not live(options)):
        said.append(f"{' and '.join(inside)} look into a teacher: it must be a bundle, and --teach live")
    if options.mixup and (any(map(teachers.is_table, options.teacher)) or not live(options)):
        said.append("--mixup mixes images: only a bundle, and --teach live, can speak of a mixture")
    if options.freeze and not options.init:
        said.append("--freeze backbone goes with --init")
    if options.freeze and inside:
        said.append(f"--freeze backbone leaves {' and '.join(inside)} nothing to move")
    if options.hard == 1 and not inside:
        said.append("--hard 1 hears no teacher: that is ribcage finetune")
    if options.match == "mse" and options.temperature != Options.temperature:
        said.append("--temperature softens --match kl: mse is what becomes of it at a high one")
    return said


def live(options: Options) -> bool:
    """Whether teachers see what the student sees, or each image once."""
    varies = options.augment != "plain" or bool(options.view)
    return options.teach == "live" or (
        options.teach == "auto" and (varies or bool(options.features or options.relations))
    )


def train(options: Options, device: Any) -> Path:
    """One process of the run."""
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.runtime import distributed
    from ribcage.training import options as course
    from ribcage.training import run_folder
    from ribcage.training.run import Plan, Training

    data = Datasets.open(options.data)
    selection.distinct(data)
    lessons = contents(options)
    if options.resume:
        run_folder.check_same("distil", options, data, lessons)
    opened = opened_teachers(options)
    introduce(opened, data)
    known = dataclasses.replace(options, findings=findings(options, data, opened), labels=1.0)
    learning, choosing = finetune.cohorts(known, data)
    tainted = check_seen(options, data, choosing)
    policy = finetune.policy_of(options, data)
    model = described(options, finetune.describe(known, data, learning, choosing, policy), opened, tainted)
    run = build(options, data, learning, choosing, model, policy, opened, device)
    course.check_layout(options, run.method, model)
    judge = validator(known, run, data, choosing, model, policy, device)
    keep = keeper(options, run, model, judge, data, learning, choosing)
    plan = Plan(
        "auroc" if options.keep == "best" and judge else "",
        options.save_minutes,
        options.validate_every,
        options.patience,
    )
    training = Training(run, options.out, plan, judge or dict, keep)
    with run_folder.going("distil", options, training, data, lessons, facts=model.training):
        watch(options, training, judge)
        if distributed.rank() == 0:
            report(options, training, judge)
            finetune.export(options)
    return options.out


def contents(options: Options) -> list[str]:
    """What the teachers answer by, wherever they lie; none may be there twice."""
    from ribcage.training import teachers

    found: dict[str, str] = {}
    for name in options.teacher:
        same = found.setdefault(teachers.content(name), name)
        if same != name:
            raise ValueError(f"--teacher names a teacher twice: {same} and {name} give the same predictions.")
    return list(found)


def opened_teachers(options: Options) -> dict[str, Any]:
    """Each teacher's bundle or table."""
    from ribcage.bundle.io import load_classifier
    from ribcage.training import teachers

    return {
        name: teachers.table(Path(name)) if teachers.is_table(name) else load_classifier(name)
        for name in options.teacher
    }


def is_model(opened: Any) -> bool:
    """Whether a teacher can be asked, and is no table."""
    from ribcage.bundle.io import Classifier

    return isinstance(opened, Classifier)


def introduce(opened: dict[str, Any], data: "Datasets") -> None:
    """Say what is strange about the teachers."""
    from ribcage.training import run_folder

    for name, one in opened.items():
        if not is_model(one):
            notes = one.notes
        else:
            fits = [each.facts.fit for each in data if each.facts.fit != one.spec.fit]
            notes = [f"it learnt from images made square by {one.spec.fit!r}, not by {fit!r}" for fit in fits]
        for note in dict.fromkeys(notes):
            run_folder.say(f"! {name}: {note}.")


def findings(options: Options, data: "Datasets", opened: dict[str, Any]) -> tuple[str, ...]:
    """Those asked for, or those of the data, or what the teachers answer."""
    from ribcage.runtime.spelling import did_you_mean
    from ribcage.training import options as course

    taught = [name for one in opened.values() for name in (one.spec if is_model(one) else one).findings]
    of_data = course.findings(dataclasses.replace(options, findings=()), data)
    chosen = options.findings or of_data or tuple(dict.fromkeys(taught))
    strange = [name for name in chosen if name not in taught and name not in of_data]
    if strange or not set(chosen) & set(taught):
        hint = did_you_mean(strange[0], [*taught, *of_data]) if strange else ""
        known = ", ".join(dict.fromkeys(taught))
        raise ValueError(f"No teacher predicts {', '.join(strange or chosen)}.{hint} They predict {known}.")
    return tuple(chosen)


def check_seen(options: Options, data: "Datasets", choosing: Any) -> str:
    """Raise where a teacher has learnt from what chooses the student: the best one by that is none. Where that is
    allowed, a sentence about it; "" where nothing is amiss."""
    from ribcage.evaluation import leakage
    from ribcage.training import run_folder, teachers

    tainted = []
    for name in options.teacher:
        seen = teachers.seen(name)
        try:
            leakage.check(seen, data, choosing, selected=True)
        except leakage.LeakError as error:
            found = f"{name} was trained on split {options.val!r}"
            why = error.leak.said("validation")
            if not error.leak.alike and (seen.role == 1).any() and not len(seen.selected):
                why += ", though it may only have been selected on these patients: its provenance does not tell"
            if not options.allow_leak:
                raise ValueError(
                    f"{found}, which selects the student. {why}. Choose another --val, or pass --allow-leak."
                ) from None
            run_folder.say(f"! {found}, which selects the student. {why}.")
            tainted.append(f"its teacher {Path(name).name} was trained on split {options.val!r}, which selected it")
    return " and ".join(tainted)


def described(options: Options, model: Any, opened: dict[str, Any], tainted: str = "") -> Any:
    """The facts of the student, with whom it learns from, and by what its choice is tainted."""
    from ribcage.training import options as course

    lessons = [
        {
            "name": one.spec.name if is_model(one) else one.file.name,
            "table": not is_model(one),
            "findings": list((one.spec if is_model(one) else one).findings),
        }
        for one in opened.values()
    ]
    before = [{**source, "before": True} for one in opened.values() if is_model(one) for source in one.spec.data]
    known = {source["source"] for source in model.data}
    more = [
        source for place, source in enumerate(before) if source["source"] not in known and source not in before[:place]
    ]
    training = {**model.training, "teachers": lessons, "options": course.written(options)}
    training |= {"leak": tainted} if tainted else {}
    return dataclasses.replace(model, data=(*model.data, *more), training=training)


def build(
    options: Options, data: "Datasets", learning: Any, choosing: Any, model: Any, policy: Any, opened: Any, device: Any
) -> Any:
    """The run: student, teachers, batches."""
    import torch

    from ribcage.bundle.init import initial_backbone
    from ribcage.data import selection
    from ribcage.evaluation import classifier_validation
    from ribcage.imaging import augment
    from ribcage.methods.distil import Distil
    from ribcage.training import options as course
    from ribcage.training import run_folder

    torch.manual_seed(options.seed)
    view = augment.changed_view(augment.PRESETS[options.augment](model.size), options.view)
    sizes = [model.size]
    if live(options):
        shapes = {name: one.spec.size for name, one in opened.items() if is_model(one)}
        check_shapes(model.size, shapes)
        sizes += dict.fromkeys(size for size in shapes.values() if size != model.size)
    there = [name for name in model.findings if any(name in one.index.findings for one in data)]
    shown = selection.share_of_patients(data, learning, options.labels, options.seed)
    if len(shown) < len(learning):
        run_folder.say(f"Labels are used for {len(shown):,} of them ({options.labels:.0%} of the patients).")
    method = Distil(
        initial_backbone(model, options.init, options.drop_path),
        model.findings,
        teachers=faculty(options, data, learning, choosing, model, policy, opened, sizes, device),
        columns=[model.findings.index(name) for name in there],
        hard=options.hard,
        temperature=options.temperature,
        match=options.match,
        features=options.features,
        relations=options.relations,
        loss=options.loss,
        smoothing=options.smoothing,
        balanced=options.balanced,
        prior=options.prior,
        mixup=options.mixup,
        dropout=options.dropout,
        freeze=options.freeze == "backbone",
    )
    seen = [augment.resized_view(view, size) for size in sizes]
    loader = course.loader(
        options, data, seen, learning, model, device,
        together=True, findings=there, labelled=shown, policy=policy,
    )  # fmt: skip
    labels = loader.labels(0, learning)
    if options.loss == "cross-entropy" and len(there) == len(model.findings):
        classifier_validation.check_exclusive(labels)
    if options.relations:
        check_maps(method, model)
    method.count(torch.from_numpy(labels))
    return course.begin(options, method, loader, device, ema=options.ema)


def check_shapes(size: tuple[int, int], shapes: dict[str, tuple[int, int]]) -> None:
    """Raise where a teacher cannot see the student's view: it is of another shape."""
    other = [f"{name} sees {one[0]} × {one[1]}" for name, one in shapes.items() if one[0] * size[1] != one[1] * size[0]]
    if other:
        raise ValueError(
            f"--size {size[0]} {size[1]} has another aspect ratio than the teacher's input: {', '.join(other)} pixels. "
            "Take a --size of that shape, or --teach stored."
        )


def check_maps(method: Any, model: Any) -> None:
    """Raise where a map is a single place, which has no relations."""
    from ribcage.methods.distil import places

    looking = [(method.backbone, model)] + [(one.method.backbone, one.model) for one in method.teachers if one.dim]
    single = [f"{one.name} at {one.size[0]} × {one.size[1]}" for seen, one in looking if places(seen, one.size) == 1]
    if single:
        raise ValueError(
            f"--relations compares positions of a feature map: that of {' and of '.join(single)} pixels has only one. "
            "Take a larger --size."
        )


def faculty(
    options: Options,
    data: "Datasets",
    learning: Any,
    choosing: Any,
    model: Any,
    policy: Any,
    opened: Any,
    sizes: Any,
    device: Any,
) -> list[Any]:
    """The teachers, ready to be asked."""
    from ribcage.training import run_folder, teachers, trainer

    how = {"device": device, "batch": options.batch, "threads": options.threads or None}
    how["bf16"] = options.precision == "bf16" or (options.precision == "auto" and trainer.fast_bf16(device))
    stored, aurocs, exclusive = {}, [], options.loss == "cross-entropy"
    for name, one in opened.items():
        if not is_model(one):
            stored[name] = teachers.read(one, data, model.findings, exclusive=exclusive)
            taught, of = teachers.spoken(stored[name], learning), [each for each in model.findings if each in one.odds]
            run_folder.say(f"{name}: predictions for {taught:,} of the {len(learning):,} images, of {', '.join(of)}.")
        elif not live(options):
            one.method.to(device)
            stored[name] = teachers.told(one, data, learning, model.findings, exclusive=exclusive, **how)
        aurocs.append(
            teachers.validated(one.spec, model.findings)
            if is_model(one)
            else teachers.scored(stored[name], data, choosing, model.findings, policy)
        )
    unscored = [name for name, found in zip(opened, aurocs, strict=True) if (found != found).all()]
    if options.weigh == "auroc" and unscored:
        raise ValueError(
            f"--weigh auroc: of {' and '.join(unscored)} no AUROC in validation is known. Take --weigh mean, or tables "
            f"that speak of split {options.val!r}."
        )
    weights = teachers.weights(aurocs, options.weigh)
    if len(opened) > 1:
        for name, one, weight in zip(opened, opened.values(), weights, strict=True):
            known = (one.spec if is_model(one) else one).findings
            share = [
                f"{each} {w:.2f}" for each, w in zip(model.findings, weight.tolist(), strict=True) if each in known
            ]
            run_folder.say(f"{name} has weights {',  '.join(share)}.")
    return [
        teachers.Stored(stored[name], weight)
        if name in stored
        else teachers.Live(
            one,
            model.findings,
            weight,
            view=sizes.index(one.spec.size),
            scale=(model.mean, model.std),
            device=device,
            exclusive=exclusive,
        )
        for (name, one), weight in zip(opened.items(), weights, strict=True)
    ]


def validator(options: Options, run: Any, data: "Datasets", choosing: Any, model: Any, policy: Any, device: Any) -> Any:
    """What scores the student after an epoch; None where no label is known to judge it by."""
    from ribcage.training import run_folder

    labels = data.known_labels(choosing, model.findings, policy)
    if ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
        return finetune.validator(options, run, data, choosing, model, policy, device)
    run_folder.say(f"Split {options.val!r} has no labels: the last epoch is kept, without thresholds.")
    return None


def keeper(
    options: Options, run: Any, model: Any, judge: Any, data: "Datasets", learning: Any, choosing: Any
) -> Callable[[], None]:
    """What stores the student: it has seen what its teachers have seen."""
    from ribcage.bundle import ood
    from ribcage.bundle.init import initial_provenance
    from ribcage.bundle.io import save_bundle
    from ribcage.data.provenance import Provenance
    from ribcage.training import teachers

    provenance = Provenance.of(data, learning, choosing) | initial_provenance(options.init)
    check = ood.later(data, learning, choosing)
    for name in options.teacher:
        provenance |= teachers.seen(name)

    def keep() -> None:
        found = judge.chosen_spec() if judge else model
        save_bundle(options.out / "bundle", run.result, found, provenance, check())

    return keep


def watch(options: Options, training: Any, judge: Any) -> None:
    """Train, and show how it goes."""
    from ribcage.training import run_folder

    try:
        if judge:
            finetune.watch(options, training, judge)
        else:
            run_folder.watch(training, options.batch, lambda log: f"loss {log.loss:.4f}")
    except ValueError:  # of a loss, or of a validation, that is not finite
        strange = [one.name for one in training.run.method.teachers if one.dim and bool(one.strange)]
        if strange:
            raise ValueError(
                f"{' and '.join(strange)} predicts values that are not finite: its weights are damaged, or it has "
                "diverged."
            ) from None
        raise


def report(options: Options, training: Any, judge: Any) -> None:
    """The last lines, and how to see what it bought."""
    if judge:
        finetune.report(options, training)
    else:
        print(f"The model is {options.out / 'bundle'}.")
    bundles = [name for name in options.teacher if Path(name).is_dir()]
    if bundles:
        print(
            f"To compare it with its teacher: evaluate {bundles[0]} too, then run ribcage compare on both evaluations."
        )
