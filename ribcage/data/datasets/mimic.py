"""MIMIC-CXR-JPG: 377,110 radiographs of 65,379 patients, with positive, negative and uncertain labels for 14 findings.

Johnson et al. 2019, https://arxiv.org/abs/1901.07042. Labels are per study and apply to all its images. The reports are
those of MIMIC-CXR, which are downloaded separately.
"""

import logging
from pathlib import Path
from typing import Literal

import pandas as pd

from ribcage.data.datasets.chexpert import LABELS
from ribcage.data.findings import CHEXPERT14, canonical, names_of
from ribcage.data.index import Index, index_table
from ribcage.data.radiology_reports import no_reports, reports_of_images
from ribcage.data.readers import coded_columns, columns, report_text, tables
from ribcage.runtime.spelling import count_phrase

CHINESE = "MIMIC-CXR-JPG：65,379 名患者 227,827 次检查的 377,110 张胸片，每次检查 14 种征象，含“不确定”"
SOURCE = "https://physionet.org/content/mimic-cxr-jpg/"
LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"
NAME = "mimic-cxr-2.0.0-{}.csv"
PARTS = {"train": "train", "validate": "val", "test": "test"}
READ_BY_RADIOLOGISTS = "mimic-cxr-2.1.0-test-set-labeled.csv"
REPORTS = "mimic-cxr-reports.zip"

log = logging.getLogger("ribcage")
NAMES = names_of("mimic", LABELS)
"""Finding → its names in the tables."""


def index(
    root: Path,
    *,
    labels: Literal["chexpert", "negbio"] = "chexpert",
    images: str = "files",
    suffix: Literal["jpg", "png", "dcm"] = "jpg",
    patients: str = "",
    test_labels: Literal["auto", "labeller"] = "auto",
    reports: str = "auto",
) -> Index:
    """Read the metadata, split and label tables, which lie in root.

    labels: Labeller whose labels are read.
    images: Folder with the images below ROOT, such as files or files_resized_320.
    suffix: File name extension of the images.
    patients: File patients.csv.gz of MIMIC-IV, with sex and age.
    test_labels: Labels of the test split; auto: those of the radiologist if the table of version 2.1.0 is there,
        else those of the labeller.
    reports: Zip archive or folder with the reports of MIMIC-CXR; auto: mimic-cxr-reports.zip or the texts in ROOT,
        if they are there; none: no reports.
    """
    meta, split, label = _read_all(root, labels)
    label["labelled_by"] = labels
    label = _with_radiologists(label, root) if test_labels == "auto" else label
    rows = meta.merge(split, on="dicom_id", how="left").merge(label, on=["subject_id", "study_id"], how="left")
    _report_gaps(rows, label)
    patient, study = rows["subject_id"], rows["study_id"]
    folder = images.strip("/") + "/" if images.strip("/.") else ""
    frame = pd.DataFrame(
        {
            "path": folder
            + "p"
            + patient.str[:2]
            + "/p"
            + patient
            + "/s"
            + study
            + "/"
            + rows["dicom_id"]
            + "."
            + suffix,
            "patient": patient,
            "study": study,
            "view": _views(rows),
            "split": rows["split"].fillna(""),
            "view_position": rows["ViewPosition"],
            "labelled_by": rows["labelled_by"].fillna(""),
            **{canonical(name, "mimic"): rows[name] for name in LABELS},
        }
    )
    frame = _with_patients(frame, rows["StudyDate"], root / Path(patients).expanduser()) if patients else frame
    return Index("mimic", index_table(frame, CHEXPERT14), CHEXPERT14, root=root, reports=_reports(frame, root, reports))


def _reports(frame: pd.DataFrame, root: Path, place: str) -> pd.DataFrame:
    """The reports of the studies, in sections."""
    if place == "none":
        return no_reports()
    studies = frame[["patient", "study"]].drop_duplicates("study")
    names = [f"p{patient[:2]}/p{patient}/s{study}.txt" for patient, study in studies.itertuples(index=False)]
    usual = [root / REPORTS, root / "mimic-cxr-reports", root]
    homes = usual if place == "auto" else [root / Path(place).expanduser()]
    homes = [home / "files" if (home / "files").is_dir() else home for home in homes if home.exists()]
    # without texts, looking for that of each study would take minutes on a network disk
    found = next(
        (home for home in homes if home.is_file() or any((home / name).is_file() for name in names[:50])), None
    )
    if found is None and place == "auto":
        return no_reports()
    if found is None:
        raise FileNotFoundError(
            f"--reports: {root / place} is not an archive or folder that contains reports such as {names[0]}."
        )
    texts = pd.DataFrame(map(report_text.report_sections, report_text.texts_of(found, names)), studies["study"])
    return reports_of_images(frame["study"], texts, "en")


def _read_all(root: Path, labels: str) -> list[pd.DataFrame]:
    """The three tables, or one error that names all missing ones."""
    near = tables.files_below(root, depth=0)
    wanted = {
        "metadata": (
            ("dicom_id", "subject_id", "study_id", "ViewPosition"),
            ("StudyDate", "ViewCodeSequence_CodeMeaning"),
        ),
        "split": (("dicom_id", "split"), ()),
        labels: (("subject_id", "study_id", *LABELS), ()),
    }
    found = {what: tables.files_named(near, NAME.format(what)) for what in wanted}
    absent = [NAME.format(what) + ".gz" for what, paths in found.items() if not paths]
    if absent:
        raise tables.missing_files(root, absent, SOURCE)
    read = []
    for what, (needed, more) in wanted.items():
        file = root / found[what][0]
        rows = tables.read_table(file, needed, (), more, labels=LABELS)
        if what == "split":
            rows["split"] = coded_columns.known_words(rows["split"], PARTS, file)
        read.append(tables.one_row_each(rows, "study_id" if what == labels else "dicom_id", file))
    return read


def _report_gaps(rows: pd.DataFrame, label: pd.DataFrame) -> None:
    """Warn of images without a split or labels, and of labels without images."""
    unlabelled = count_phrase(int(rows["labelled_by"].isna().sum()), "image")
    unused = ~label["study_id"].isin(rows.loc[rows["labelled_by"].notna(), "study_id"])
    for count, said in (
        (rows["labelled_by"].isna().sum(), f"There are no labels of the studies of {unlabelled}."),
        (unused.sum(), f"Labels of {count_phrase(int(unused.sum()), 'study', 'studies')} without images were ignored."),
        (rows["split"].isna().sum(), f"{count_phrase(int(rows['split'].isna().sum()), 'image')} without a split."),
    ):
        if count:
            log.warning("%s", said)


def _views(rows: pd.DataFrame) -> pd.Series:
    """View from ViewPosition; where that is blank, from the view code meaning ('postero-anterior')."""
    said = rows["ViewPosition"].str.strip()
    meaning = rows.get("ViewCodeSequence_CodeMeaning", pd.Series("", rows.index, dtype="str"))
    said = said.mask(said == "", meaning)
    return columns.views(said)


def _with_radiologists(label: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The labels, replaced by a radiologist's in the studies listed in the table of version 2.1.0."""
    found = tables.files_named(tables.files_below(root, depth=0), READ_BY_RADIOLOGISTS)
    if not found:
        return label
    header = tables.header(root / found[0])
    meant = {columns.vocabulary_name(name): name for name in header if name != "study_id"}
    named = {name: meant[canonical(name, "mimic")] for name in LABELS if canonical(name, "mimic") in meant}
    numbers = list(named.values())
    if missing := [name for name in LABELS if name not in named]:
        log.warning("%s has no column for %s; a radiologist's labels are unknown.", root / found[0], ", ".join(missing))
    read = tables.read_table(root / found[0], ["study_id", *numbers], labels=numbers)
    read = tables.one_row_each(read, "study_id", root / found[0]).set_index("study_id")
    theirs = label["study_id"].isin(read.index)
    log.warning("%s test studies have labels from a radiologist (%s).", f"{theirs.sum():,}", READ_BY_RADIOLOGISTS)
    read = read.reindex(label["study_id"])
    for name in LABELS:
        own = pd.Series(read[named[name]].to_numpy(), label.index) if name in named else float("nan")
        label[name] = label[name].mask(theirs, own)
    return label.assign(labelled_by=label["labelled_by"].mask(theirs, "radiologist"))


def _with_patients(frame: pd.DataFrame, dates: pd.Series, file: Path) -> pd.DataFrame:
    """Sex, and the age at the study: MIMIC-IV gives the age in an anchor year of the same shifted calendar."""
    columns = ("subject_id", "gender", "anchor_age", "anchor_year")
    people = tables.one_row_each(tables.read_table(file, columns, columns[2:]), "subject_id", file)
    people = people.set_index("subject_id")
    person = people.reindex(frame["patient"]).reset_index(drop=True)
    year = coded_columns.numbers(dates.str[:4])
    return frame.assign(
        sex=coded_columns.sexes(person["gender"].fillna("")),
        age=coded_columns.plausible_years(person["anchor_age"] + year - person["anchor_year"]),
    )
