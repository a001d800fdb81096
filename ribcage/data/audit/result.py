"""The result of an audit, as JSON has it."""

from typing import NotRequired, TypedDict

Place = list[str]
"""A dataset and a split of it."""


class FindingCount(TypedDict):
    """Labels of one finding in one split."""

    finding: str
    split: str
    positive: int
    negative: int
    uncertain: int
    unknown: int


class Ages(TypedDict):
    """Ages in years; only `known` where there are none."""

    known: int
    quartiles: NotRequired[list[float]]
    children: NotRequired[int]
    """Under 18."""
    impossible: NotRequired[int]
    """Below 0 or above 110."""
    decades: NotRequired[dict[str, int]]


class MaskCount(TypedDict):
    """Number of masks of a structure with pixels and without."""

    masks: int
    empty: int


class DatasetCounts(TypedDict):
    """The counts of one dataset."""

    label: str
    bare: bool
    name: str
    source: str
    licence: str
    root: str
    images: int
    patients: int
    without_patient: int
    """Images whose patient is not known."""
    unknown_in_splits: int
    """… of those in a split."""
    studies: int
    rejected: int
    stored: str
    notes: dict[str, int]
    splits: dict[str, int]
    split_patients: dict[str, int]
    findings: list[FindingCount]
    curation: dict[str, int]
    """Number of training images that `curate` selected or did not select, by reason; empty without a selection."""
    views: dict[str, int]
    sexes: dict[str, int]
    ages: Ages
    sides: dict[str, list[int]]
    """Smallest, median and largest width and height of the image files, in pixels."""
    enlarged: str
    labelled: int
    damaged: int
    without_test: list[str]
    """Published splits without test images."""
    notices: list[str]
    boxes: dict[str, int]
    boxed_images: int
    readers: int
    """Readers whose labels are known; 0 if the readers are not distinguished."""
    readings: int
    """Pairs of an image and a reader."""
    read_images: int
    masks: dict[str, MaskCount]
    """For each structure."""
    masked_images: int
    points: dict[str, int]
    """Number of points of each structure."""
    reports: dict[str, int]
    """Number of reports, of their images, and of reports with each section; empty if there are no reports."""


class SharedCopies(TypedDict):
    """Groups of copies that have members in two splits."""

    one: Place
    other: Place
    groups: int


class Copies(TypedDict):
    """Groups of images that occur more than once."""

    groups: int
    images: int
    places: list[SharedCopies]
    other_patient: int
    """Groups with several patient numbers."""
    other_labels: int
    """Groups with different labels."""
    examples: list[list[list[str]]]
    """The images of the first groups, each as [dataset, split, path]."""


class SharedPatients(TypedDict):
    """Patients in two splits of one dataset, or in two datasets."""

    sets: list[str]
    splits: list[str]
    patients: int
    images: list[int]
    examples: list[str]


class SharedSplits(TypedDict):
    """Images and patients that two splits, each of a published family, have in common."""

    set: str
    one: list[str]
    other: list[str]
    images: int
    of: int
    patients: int
    of_patients: int


class AuditFindings(TypedDict):
    """What was found, without the sentences about it."""

    sets: list[DatasetCounts]
    identical: Copies
    near: Copies | None
    not_compared: list[str]
    patients: list[SharedPatients]
    families: list[SharedSplits]


class AuditResult(AuditFindings):
    """All of an audit."""

    problems: list[str]
