"""Add a test to the history of its model: its result, and how often these images were used before."""

from dataclasses import replace

from ribcage.bundle import history
from ribcage.bundle.io import find_bundle, upload_changed
from ribcage.evaluation import leakage
from ribcage.evaluation.planned_test import PlannedTest, training_splits
from ribcage.metrics.evaluation import Evaluation
from ribcage.metrics.evaluation_context import RecordedTest


def recorded_test(test: PlannedTest, result: Evaluation, metric: str) -> RecordedTest:
    """The test as recorded in the model's history. metric: auroc or map."""
    folder, mean = find_bundle(test.rules.run), result.macro[metric]
    past = history.PastTest(
        number=0,
        name=test.name,
        split=test.rules.split,
        key=test.key,
        contents=tuple(leakage.images_of(dataset) for dataset in test.datasets),
        weights=history.weights_of(folder),
        options=" ".join(test.rules.words),
        honest=is_honest(test, result),
        images=result.images,
        patients=result.patients,
        judged=mean.findings,
        metric={"auroc": "mean AUROC" if len(result.findings) > 1 else "AUROC", "map": "mAP"}[metric],
        value=mean.value,
        low=mean.low,
        high=mean.high,
    )
    before = history.load_tests(folder)
    try:
        past = history.add(folder, past)
        upload_changed(test.rules.run, folder, history.FILE)
    except OSError as error:
        print(f"The history of tests in {folder} was not updated: {error.strerror or error}.")
        past = replace(past, number=len(before) + 1)
    before = [one for one in before if one.number < past.number]
    used = history.use(before, past.contents, past.split)
    return RecordedTest(
        number=past.number,
        use=len(used) + 1,
        before=tuple(one.number for one in used),
        key=past.key,
        contents=past.contents,
        weights=past.weights,
        honest=past.honest,
        new=history.new(past, before),
        text=history.sentence(past.number, used),
    )


def is_honest(test: PlannedTest, result: Evaluation) -> bool:
    """Whether, as far as is known, the model was neither trained nor selected on the tested images, and no threshold
    was chosen on them."""
    unused = test.rules.split not in training_splits(test.spec)
    return not result.context.leak.found and test.rules.protocol == "honest" and unused
