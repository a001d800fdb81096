"""Details of an evaluation that are common to all kinds of models: title, leakage check, intervals, versions."""

from ribcage.evaluation.comparison import ComparedModel
from ribcage.metrics.evaluation import Evaluation


def evaluation_title(result: Evaluation) -> str:
    """densenet121 on nih, test"""
    datasets = " and ".join(dict.fromkeys(one.name for one in result.context.data))
    return f"{result.context.model.name} on {datasets}, {result.context.split}"


def has_mean(result: Evaluation | ComparedModel) -> bool:
    """Whether a mean over findings is shown: of one finding it would repeat its number."""
    return len(result.findings) > 1 and result.macro["auroc"].findings != 1


def intervals_sentence(result: Evaluation) -> str:
    """How the intervals were computed."""
    return (
        f"Intervals are {100 * result.level:g} % Wilson intervals clustered by patient; variances without a closed "
        f"form are estimated from {result.resamples:,} bootstrap resamples of patients."
    )


def leakage_card(result: Evaluation) -> tuple[str, str]:
    """Whether test patients or images were in the training data, as far as they could be compared."""
    leak = result.context.leak
    if leak.found or leak.complete:
        return ("found" if leak.found else "none"), "train–test leakage"
    return "none found", "train–test leakage (incomplete check)"


def evaluation_details(result: Evaluation, description: str, test_images: str, protocol: str) -> list[tuple[str, str]]:
    """(name, text) of model, data, protocol, leakage check, and versions."""
    model, leak = result.context.model, result.context.leak
    height, width = model.size
    trained = "; ".join(f"{one.name} ({one.licence})" for one in model.data) or "not recorded"
    tested = [f"{one.name} from {one.folder} ({one.source}; {one.licence})" for one in result.context.data]
    linked = (
        f" For this check, fingerprints of the images in {', '.join(leak.linked)} were computed." if leak.linked else ""
    )
    return [
        ("model", f"{model.name}, {height} × {width} px, {description}"),
        ("training data", trained),
        ("test data", "; ".join(tested)),
        ("split", f"{result.context.split}: {test_images}"),
        ("protocol", protocol),
        ("uncertain and missing labels", f"label policy '{result.context.policy}'"),
        *(
            [("test", f"{result.context.test.text} Test key: {result.context.test.key}.")]
            if result.context.test.number
            else []
        ),
        *([("saliency maps", result.context.maps)] if result.context.maps else []),
        ("leakage check", f"{leak.text[:1].upper()}{leak.text[1:]}.{linked}"),
        ("intervals", f"{intervals_sentence(result)} Seed: {result.seed}."),
        ("versions", ", ".join(f"{name} {version}" for name, version in result.context.versions.items())),
    ]
