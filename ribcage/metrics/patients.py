"""Patient codes as numbers."""

import numpy as np


def patient_numbers(patients: np.ndarray | None, count: int) -> np.ndarray:
    """(N,) int64 from 0: known patients in the order of their codes, then one for each row without a patient. A
    negative number, an empty text, None or NaN means unknown."""
    if patients is None:
        return np.arange(count)
    patients = np.asarray(patients)
    if patients.shape != (count,):
        raise ValueError(f"patients must have one code for each of the {count} rows, but has shape {patients.shape}.")
    if patients.dtype.kind not in "iuf":
        patients = np.array([_text(code) for code in patients.tolist()])
    known = patients != "" if patients.dtype.kind == "U" else patients >= 0  # NaN compares as false
    values, codes = np.unique(patients[known], return_inverse=True)
    numbers = np.empty(count, np.int64)
    numbers[known] = codes
    numbers[~known] = len(values) + np.arange((~known).sum())
    return numbers


def _text(code: object) -> str:
    unknown = (isinstance(code, int | float) and not code >= 0) or not isinstance(code, str | int | float)
    return "" if unknown else str(code)
