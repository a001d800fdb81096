"""Details of an evaluation that every kind of model shares: its title, its leakage check, how to repeat it."""

from typing import Any


def evaluation_title(result: dict[str, Any]) -> str:
    """densenet121 on nih, test"""
    datasets = " and ".join(dict.fromkeys(one["name"] for one in result["data"]))
    return f"{result['model']['name']} on {datasets}, {result['split']}"


def has_mean(result: dict[str, Any]) -> bool:
    """Whether a mean over findings is shown: of one finding it would repeat its number."""
    return len(result["findings"]) > 1 and result["macro"]["auroc"]["findings"] != 1


def leakage_card(result: dict[str, Any]) -> tuple[str, str]:
    """Whether test patients or images were in the training data."""
    return ("found" if result["leak"]["found"] else "none found"), "train–test leakage"


def evaluation_details(
    result: dict[str, Any], description: str, test_images: str, protocol: str
) -> list[tuple[str, str]]:
    """(name, text) of model, data, protocol, leakage check, and versions."""
    model, leak = result["model"], result["leak"]
    (height, width), level = model["size"], 100 * result["level"]
    trained = "; ".join(f"{one.get('name', '')} ({one.get('licence', '')})" for one in model["data"]) or "not recorded"
    tested = [f"{one['name']} from {one['folder']} ({one['source']}; {one['licence']})" for one in result["data"]]
    linked = f" Images of {', '.join(leak['linked'])} were fingerprinted for this." if leak["linked"] else ""
    return [
        ("model", f"{model['name']}, {height} × {width} px, {description}"),
        ("training data", trained),
        ("test data", "; ".join(tested)),
        ("split", f"{result['split']}: {test_images}"),
        ("protocol", protocol),
        ("uncertain and missing labels", f"policy '{result['policy']}'"),
        *([("test", f"{result['test']['text']} Key: {result['test']['key']}.")] if "test" in result else []),
        *([("saliency maps", result["maps"])] if "maps" in result else []),
        ("leakage check", f"{leak['text'][:1].upper()}{leak['text'][1:]}.{linked}"),
        (
            "intervals",
            f"{level:g} % Wilson intervals over patients; {result['resamples']:,} resamples, seed {result['seed']}",
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in result["versions"].items())),
    ]
