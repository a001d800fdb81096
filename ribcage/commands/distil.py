"""Train a small model to answer as others do: models it learns from, beside the labels that are known.

Teachers are bundles, which see the very picture that the student sees, at their own size; or tables of predictions.
They teach pictures without labels, too. The rest is as in 'ribcage finetune': validation chooses the best, the test
part is not touched, --resume goes on.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ribcage.commands import finetune

POSITIONAL = ()


@dataclass(frozen=True, kw_only=True)
class Options(finetune.Options):
    """Who learns what from whom."""

    teacher: tuple[str, ...]
    """Bundles, run folders or tables of predictions (parquet, csv)."""
    model: str = "eeea_net_c2"
    """The student: any model of timm's, or one of Ribcage's own."""
    labels: float = 1.0
    """Share of the training patients whose labels are shown; teachers teach all of them."""
    hard: float = 0.5
    """Share of the labels in the loss; the rest is the teachers'."""
    temperature: float = 2.0
    """How far answers are softened."""
    match: Literal["kl", "mse"] = "kl"
    """How the student's answers are laid beside the teachers': as softened probabilities, or as logits."""
    features: float = 0.0
    """Weight of the likeness between the student's features and a teacher's."""
    relations: float = 0.0
    """Weight of the likeness between places of a picture, as the student and as a teacher sees them."""
    weigh: Literal["mean", "auroc"] = "mean"
    """Several teachers: all alike, or by how far above chance each was in validation, finding by finding."""
    teach: Literal["auto", "live", "stored"] = "auto"
    """live: teachers see every augmented picture; stored: each plain picture once; auto: live if anything varies."""
    allow_leak: bool = False
    """Go on although a teacher has learnt from the pictures that choose the best student."""


def run(options: Options) -> Any:
    """Open the teachers, build the student, train, say what came of it; return the run folder."""
    import sys

    from ribcage import course, runs

    runs.check(options, wrong(options))
    return course.run("distil", sys.modules[__name__], options, train)


def wrong(options: Options) -> list[str]:
    """What does not go together."""
    from ribcage import teachers

    only_tables = all(map(teachers.is_table, options.teacher))
    inside = [f"--{name}" for name in ("features", "relations") if getattr(options, name)]
    said = []
    if not options.teacher:
        said.append("--teacher names nobody")
    twice = [name for name in dict.fromkeys(options.teacher) if options.teacher.count(name) > 1]
    said += [f"--teacher names {name} twice" for name in twice]
    if options.patience and options.keep == "last":
        said.append("--patience waits for a best epoch, --keep last knows none")
    if options.accumulate > 1:
        said.append("--accumulate does not go with distil: it divides by what is known, and by what is taught")
    if inside and (only_tables or not live(options)):
        said.append(f"{' and '.join(inside)} look into a teacher: it must be a bundle, and --teach live")
    if options.mixup and (any(map(teachers.is_table, options.teacher)) or not live(options)):
        said.append("--mixup mixes pictures: only a bundle, and --teach live, can speak of a mixture")
    if options.freeze and not options.init:
        said.append("--freeze backbone goes with --init")
    return said


def live(options: Options) -> bool:
    """Whether teachers see what the student sees, or each picture once."""
    varies = options.augment != "plain" or bool(options.view)
    return options.teach == "live" or (
        options.teach == "auto" and (varies or bool(options.features or options.relations))
    )


def train(options: Options, device: Any) -> Path:
    """One process of the run."""
    from ribcage import cohort, course, distributed, runs, store
    from ribcage.training import Plan, Training

    stores = store.open_all(options.data)
    cohort.distinct(stores)
    if options.resume:
        runs.check_same("distil", options, stores)
    opened = opened_teachers(options)
    known = dataclasses.replace(options, findings=findings(options, stores, opened), labels=1.0)
    learning, choosing = finetune.cohorts(known, stores)
    check_seen(options, stores, choosing)
    policy = finetune.policy_of(options, stores)
    model = described(options, finetune.describe(known, stores, learning, choosing, policy), opened)
    run = build(options, stores, learning, choosing, model, policy, opened, device)
    course.check_layout(options, run.method, model)
    judge = validator(known, run, stores, choosing, model, policy, device)
    keep = keeper(options, run, model, judge, stores, learning, choosing)
    plan = Plan("auroc" if options.keep == "best" and judge else "", options.save_minutes, 1, options.patience)
    training = Training(run, options.out, plan, judge or dict, keep)
    if options.resume and not runs.unsaved(options.out):
        training.resume()
    elif distributed.rank() == 0:
        runs.begin("distil", options, stores)
    watch(options, training, judge)
    if distributed.rank() == 0:
        report(options, training, judge)
        finetune.export(options)
    return options.out


def opened_teachers(options: Options) -> dict[str, Any]:
    """Each teacher's bundle, or None for a table."""
    from ribcage import bundle, teachers

    return {name: None if teachers.is_table(name) else bundle.load(name) for name in options.teacher}


def findings(options: Options, stores: Any, opened: dict[str, Any]) -> tuple[str, ...]:
    """Those asked for, or those of the data, or what the teachers answer."""
    from ribcage import course, teachers

    taught = [
        name
        for file, one in opened.items()
        for name in (one.model.findings if one else teachers.table(Path(file))[1].columns)
    ]
    of_data = course.findings(dataclasses.replace(options, findings=()), stores)
    chosen = options.findings or of_data or tuple(dict.fromkeys(taught))
    strange = [name for name in chosen if name not in taught and name not in of_data]
    if strange or not set(chosen) & set(taught):
        known = ", ".join(dict.fromkeys(taught)) or "nothing"
        raise ValueError(f"No teacher knows {', '.join(strange or chosen)}; they know {known}.")
    return tuple(chosen)


def check_seen(options: Options, stores: Any, choosing: Any) -> None:
    """Raise where a teacher has learnt from what chooses the student: the best one by that is none."""
    from ribcage import guard, runs, teachers

    for name in options.teacher:
        try:
            found = guard.check(teachers.seen(name), stores, choosing, allow=options.allow_leak, selected=True)
        except guard.LeakError as error:
            raise guard.LeakError(
                f"{name} has learnt from split {options.val!r}, which is to choose the student. "
                f"{str(error).partition(' Test on')[0]} Take another --val, or pass --allow-leak."
            ) from None
        if max(found["pictures"], found["alike"]) > found["selected_on"]:
            runs.say(f"! {name} has learnt from what chooses the student: {found['text']}.")


def described(options: Options, model: Any, opened: dict[str, Any]) -> Any:
    """The facts of the student, with whom it learns from."""
    from ribcage import course, teachers

    lessons = [
        {
            "name": one.model.name if one else Path(name).name,
            "table": one is None,
            "findings": list(one.model.findings) if one else [],
            "seen": len(teachers.seen(name).pixels) > 0,
        }
        for name, one in opened.items()
    ]
    before = [{**source, "before": True} for one in opened.values() if one for source in one.model.data]
    known = {source["source"] for source in model.data}
    more = [
        source for place, source in enumerate(before) if source["source"] not in known and source not in before[:place]
    ]
    training = {**model.training, "teachers": lessons, "options": course.written(options)}
    return dataclasses.replace(model, data=(*model.data, *more), training=training)


def build(
    options: Options, stores: Any, learning: Any, choosing: Any, model: Any, policy: Any, opened: Any, device: Any
) -> Any:
    """The run: student, teachers, batches."""
    import torch

    from ribcage import bundle, cohort, course, distributed, runs, validation, views
    from ribcage.loader import Loader
    from ribcage.methods.distil import Distil

    torch.manual_seed(options.seed)
    view = views.changed(views.PRESETS[options.augment](model.size), options.view)
    sizes = [model.size]
    if live(options):
        sizes += dict.fromkeys(one.model.size for one in opened.values() if one and one.model.size != model.size)
    there = [name for name in model.findings if any(name in one.index.findings for one in stores)]
    shown = cohort.share_of_patients(stores, learning, options.labels, options.seed)
    if len(shown) < len(learning):
        runs.say(f"Labels are shown of {len(shown):,} of them ({options.labels:.0%} of the patients).")
    method = Distil(
        bundle.backbone(model, options.init, options.drop_path),
        model.findings,
        teachers=faculty(options, stores, learning, choosing, model, opened, sizes, device),
        columns=[model.findings.index(name) for name in there],
        hard=options.hard,
        temperature=options.temperature,
        match=options.match,
        features=options.features,
        relations=options.relations,
        loss=options.loss,
        smoothing=options.smoothing,
        balanced=options.balanced,
        mixup=options.mixup,
        dropout=options.dropout,
        freeze=options.freeze == "backbone",
    )
    loader = Loader(
        stores,
        [views.resized(view, size) for size in sizes],
        together=True,
        batch=options.batch,
        seed=options.seed,
        rows=learning,
        findings=there,
        labelled=shown,
        policy=policy,
        drop_last=len(learning) >= options.batch,
        threads=options.threads or None,
        rank=distributed.rank(),
        world=distributed.world(),
        channels=model.channels,
        normalise=(model.mean, model.std),
        device=device,
    )
    labels = loader.labels(0, learning)
    if options.loss == "cross-entropy" and len(there) == len(model.findings):
        validation.check_exclusive(labels)
    finetune.check_parts(options, method, min(options.batch, len(learning)))
    method.count(torch.from_numpy(labels))
    return course.begin(options, method, loader, device, ema=options.ema)


def faculty(
    options: Options, stores: Any, learning: Any, choosing: Any, model: Any, opened: Any, sizes: Any, device: Any
) -> list[Any]:
    """The teachers, ready to be asked."""
    from ribcage import loop, runs, teachers

    how = {"device": device, "batch": options.batch, "threads": options.threads or None}
    how["bf16"] = options.precision == "bf16" or (options.precision == "auto" and loop.fast_bf16(device))
    stored, aurocs, exclusive = {}, [], options.loss == "cross-entropy"
    for name, one in opened.items():
        if one is None:
            stored[name] = teachers.read(Path(name), stores, model.findings, exclusive=exclusive)
            taught = teachers.spoken(stored[name], learning)
            runs.say(f"{name} speaks of {taught:,} of the {len(learning):,} pictures.")
        elif not live(options):
            one.method.to(device)
            stored[name] = teachers.told(one, stores, learning, model.findings, exclusive=exclusive, **how)
        aurocs.append(
            teachers.validated(one.model, model.findings)
            if one
            else teachers.scored(stored[name], stores, choosing, model.findings)
        )
    weights = teachers.weights(aurocs, options.weigh)
    return [
        teachers.Stored(stored[name], weight)
        if name in stored
        else teachers.Live(
            one,
            model.findings,
            weight,
            view=sizes.index(one.model.size),
            scale=(model.mean, model.std),
            device=device,
            exclusive=exclusive,
        )
        for (name, one), weight in zip(opened.items(), weights, strict=True)
    ]


def validator(options: Options, run: Any, stores: Any, choosing: Any, model: Any, policy: Any, device: Any) -> Any:
    """What scores the student after an epoch; None where no label is known to judge it by."""
    from ribcage import runs
    from ribcage.validation import known_labels

    labels = known_labels(stores, choosing, model.findings, policy)
    if ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
        return finetune.validator(options, run, stores, choosing, model, policy, device)
    runs.say(f"Split {options.val!r} has no labels to judge by: the last epoch is kept, without thresholds.")
    return None


def keeper(
    options: Options, run: Any, model: Any, judge: Any, stores: Any, learning: Any, choosing: Any
) -> Callable[[], None]:
    """What stores the student: it has seen what its teachers have seen."""
    from ribcage import bundle, teachers
    from ribcage.provenance import Provenance

    provenance = Provenance.of(stores, learning, choosing) | bundle.seen(options.init)
    for name in options.teacher:
        provenance |= teachers.seen(name)

    def keep() -> None:
        bundle.save(options.out / "bundle", run.result, judge.calibrated() if judge else model, provenance)

    return keep


def watch(options: Options, training: Any, judge: Any) -> None:
    """Train, and show how it goes."""
    from ribcage import runs

    if judge:
        finetune.watch(options, training, judge)
        return
    runs.watch(training, options.batch, lambda log: f"loss {log.loss:.4f}")


def report(options: Options, training: Any, judge: Any) -> None:
    """The last lines, and how to see what it bought."""
    if judge:
        finetune.report(options, training)
    else:
        print(f"The model is {options.out / 'bundle'}.")
    bundles = [name for name in options.teacher if Path(name).is_dir()]
    if bundles:
        print(f"Beside its teacher: evaluate {bundles[0]} too, then ribcage compare both evaluations.")
