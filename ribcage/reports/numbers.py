"""Numbers and names as pages and tables print them; "–" for what is not defined."""

import numpy as np
import pandas as pd

from ribcage.bundle.spec import HALF
from ribcage.metrics.estimates import ScalarEstimate

RULES = {
    "youden": "Youden's J (maximises sensitivity + specificity)",
    "midpoint": "midpoint between the mean log-odds of the two classes",
    "f1": "highest F1",
    "sensitivity_95": "sensitivity of at least 95 %",
    "specificity_95": "specificity of at least 95 %",
    HALF: "probability of 50 %",
}


def finding_name(finding: str) -> str:
    """Pleural Thickening"""
    return finding.replace("_", " ")


def rule_name(rule: str) -> str:
    """The rule that chose a threshold, in words."""
    return RULES.get(rule, rule)


def decimals(value: float | None) -> str:
    """0.823"""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def limits(interval: ScalarEstimate) -> str:
    """0.812–0.834; −0.120 to 0.310"""
    if interval.low is None or interval.high is None:
        return "–"
    return f"{interval.low:.3f}{' to ' if interval.low < 0 else '–'}{interval.high:.3f}".replace("-", "−")


def with_limits(interval: ScalarEstimate) -> str:
    """0.823 (0.812–0.834)"""
    return decimals(interval.value) + (f" ({limits(interval)})" if interval.low is not None else "")


def titled(title: str, interval: ScalarEstimate) -> str:
    """mean AUROC (0.812–0.834); the title alone where there is no interval"""
    return title if interval.low is None else f"{title} ({limits(interval)})"


def percent(share: float) -> str:
    """40 %; two significant digits below 10 %."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def signed(value: float | None) -> str:
    """+0.012"""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def signed_limits(interval: ScalarEstimate) -> str:
    """−0.003 to +0.020"""
    return "–" if interval.low is None else f"{signed(interval.low)} to {signed(interval.high)}"


def p_value(value: float | None) -> str:
    """0.034; < 0.001"""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def person(about: pd.Series) -> str:
    """View, sex and age from a row of an index, as far as they are known: PA F 51"""
    age = "" if np.isnan(about["age"]) else f"{about['age']:.0f}"
    return " ".join(text for text in (about["view"], about["sex"], age) if text)
