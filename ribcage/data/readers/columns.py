"""Columns: the meaning of the columns of a user's table, by their names and by the words in their cells."""

import logging
import math
import re
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from ribcage.data import findings
from ribcage.data.contradictions import report_no_finding
from ribcage.data.readers import coded_columns, finding_phrases
from ribcage.data.readers.table_text import column_names, shown
from ribcage.runtime.spelling import did_you_mean

log = logging.getLogger("ribcage")

# Role → the names it may have, most usual first; compared without case, spaces and punctuation.
ROLES = {
    "path": "path image_path file_path file filename file_name image image_index image_id image_name image_file img "
    "img_path img_file img_name dicom_id 路径 文件 文件名 文件名称 文件路径 图像 图像路径 图像文件 图像名 图像名称 "
    "图片 图片路径 图片名 图片名称 影像 影像路径 影像文件 影像名称",
    "patient": "patient patient_id subject subject_id pid mrn case_id 患者ID 患者编号 患者号 患者 "
    "病人ID 病人编号 病人号 病人 病案号 病历号 住院号 门诊号 登记号",
    "study": "study study_id study_uid study_instance_uid accession accession_number 检查号 检查ID 检查编号 检查流水号",
    "view": "view view_position projection position 体位 投照体位 摄影体位 检查体位 投照位置",
    "split": "split set subset partition phase 划分 数据划分 数据集",
    "sex": "sex gender patient_sex patient_gender 性别",
    "age": "age patient_age age_years 年龄",
}
# Names of columns with lists of findings, such as 'Effusion|Mass'.
LISTS = (
    "labels finding_labels label findings finding diagnosis diagnoses class category target "
    "诊断 诊断结果 征象 疾病 标签"
)

SPLITS = {
    "train": ("train", "training", "tr", "训练", "训练集"),
    "val": ("val", "valid", "validation", "validate", "dev", "tune", "验证", "验证集"),
    "test": ("test", "testing", "eval", "holdout", "测试", "测试集"),
}
# Each word of a cell such as 'AP Supine' or 'XTABLE LATERAL' is looked up; the first line with one of them decides. A
# patient who lies, or is in bed, is exposed from the front.
VIEWS = {
    "": (
        "oblique",
        "decubitus",
        "lordotic",
        "apical",
        "rpo",
        "lpo",
        "rao",
        "lao",
        "swimmers",
        "abdomen",
        "rib",
        "ribs",
    ),
    "LATERAL": ("lateral", "lat", "l", "ll", "rl", "侧位", "左侧位", "右侧位"),
    "PA": ("pa", "posteroanterior", "后前位"),
    "AP": ("ap", "anteroposterior", "supine", "portable", "bedside", "semierect", "前后位", "床旁", "仰卧位"),
}
# Words of a view or a modality that no radiograph has.
SLICES = (
    "ct",
    "hrct",
    "axial",
    "coronal",
    "sagittal",
    "mr",
    "mri",
    "tomography",
    "pet",
    "us",
    "ultrasound",
    "断层",
    "轴位",
    "冠状位",
    "矢状位",
)
MODALITY = "modality kind image_type type 模态 检查类型 设备类型"
"""Names of the column with the modality."""
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
# Numbers are compared as numbers: 1, 1.0 and 1.00 are equal.
LABELS = {
    1.0: ("yes", "y", "true", "t", "pos", "positive", "present", "+", "阳性", "有", "是"),
    0.0: ("no", "n", "false", "f", "neg", "negative", "absent", "-", "阴性", "无", "否"),
    -1.0: ("uncertain", "u", "?", "equivocal", "不确定", "可疑"),
    np.nan: ("", "nan", "na", "n/a", "none", "null", "unknown", ".", "未知"),
}
STRANGE = 9.0
# In a list; a letter or a sign could mean anything there.
NOTHING = ("0", *(word for word in LABELS[0.0] if len(word) > 1 or not word.isascii()))
MOST_SPLITS = 5
"""Maximum number of custom split names; with more, the column is something else."""
SPLIT_WORDS = {word: part for part, known in SPLITS.items() for word in known}
SLICES_SET = frozenset(SLICES)
FRONTAL = frozenset(("frontal", "正位"))
"""Words for PA or AP."""
VIEW_WORDS = frozenset(word for view in ("PA", "AP", "LATERAL") for word in VIEWS[view])
LABEL_WORDS: dict[str, float] = {word: value for value, known in LABELS.items() for word in known}


def roles(header: Sequence[str], given: dict[str, str]) -> dict[str, str]:
    """Role → column: the one given ('none' for no column), else the first with a usual name."""
    wrong = [
        f"--{role.replace('_', '-')}-column {name!r}: there is no such column.{did_you_mean(name, header)}"
        for role, name in given.items()
        if name not in ("", "none", *header)
    ]
    if wrong:
        raise ValueError(f"{' '.join(wrong)} {among(header)}")
    found = {role: given.get(role) or column_named(header, names) for role, names in ROLES.items()}
    return {role: name for role, name in found.items() if name not in ("", "none")}


def among(header: Sequence[str]) -> str:
    """The available columns, to end an error message with."""
    garbled = " If these names look wrong, use --encoding." if not all(map(str.isascii, header)) else ""
    more = f", and {len(header) - 40:,} more" if len(header) > 40 else ""
    return f"Columns: {column_names(header[:40])}{more}.{garbled}"


def label_columns(header: Sequence[str], taken: Sequence[str], given: Sequence[str]) -> list[str]:
    """The columns with labels: those given, else all that are named after findings, else one with lists of findings."""
    wrong = [name for name in given if name not in header]
    if wrong:
        names, hints = " and no column ".join(map(repr, wrong)), "".join(did_you_mean(name, header) for name in wrong)
        raise ValueError(f"--label-columns: the table has no column {names}.{hints} {among(header)}")
    free = [name for name in header if name not in taken]
    known = [name for name in free if findings.is_known_finding(name)]
    listed = column_named(free, LISTS)
    return list(given) or known or ([listed] if listed else [])


def labels(rows: pd.DataFrame, chosen: Sequence[str]) -> pd.DataFrame:
    """One column of 1, 0, -1 or NaN per finding, from yes/no columns or one of lists like 'Effusion|Mass'."""
    if len(chosen) == 1 and _is_listed(chosen[0], rows[chosen[0]]):
        return listed_labels(rows[chosen[0]])
    values = {name: _labels(rows[name]) for name in chosen}
    strange = {
        name: int((found == STRANGE).to_numpy().argmax()) for name, found in values.items() if STRANGE in set(found)
    }
    if strange:
        said = [f"{name} has {shown(rows[name].iloc[at])} in line {rows.index[at] + 2}" for name, at in strange.items()]
        raise ValueError(
            f"Labels must be 1, 0, -1 (uncertain), yes, no or blank: {'; '.join(said)}. "
            "Correct them, or choose the columns with --label-columns."
        )
    found = pd.DataFrame(values, index=rows.index, dtype="float32")
    found.columns = pd.Index([vocabulary_name(name) for name in chosen])
    twice = found.columns[found.columns.duplicated()]
    if len(twice):
        raise ValueError(f"Two label columns refer to the same finding, {twice[0]}. Choose one with --label-columns.")
    return found


def listed_labels(cells: pd.Series) -> pd.DataFrame:
    """Labels from cells such as 'Effusion|Mass'. 'Normal' is the row without findings, a blank cell is unknown."""
    codes, unique = pd.factorize(cells.str.strip())
    alone = {findings.plain_letters(cell) for cell in unique}
    parts = [_parts(cell, alone) for cell in unique]
    items = {word for cell in parts for word in cell if not _is_nothing(word)}
    absent = finding_phrases.negated_class(items)
    _check_items(cells, codes, parts, absent)
    _say_commas(unique.tolist(), parts)
    if absent:
        log.warning("%r was read as the absence of %s.", absent, ", ".join(map(vocabulary_name, items - {absent})))
    sets = [
        {"No_Finding" if _is_nothing(word) or word == absent else vocabulary_name(word) for word in cell}
        for cell in parts
    ]
    both = np.array(["No_Finding" in each and len(each) > 1 for each in sets], bool)
    report_no_finding(int(both[codes].sum()), "row")
    names = sorted(set().union(*sets) - {"No_Finding"}, key=_in_order)
    known = np.array([[float(name in each) if each else np.nan for name in names] for each in sets], np.float32)
    return pd.DataFrame(known.reshape(len(sets), len(names))[codes], columns=names, index=cells.index)


def unnamed(item: str) -> bool:
    """Whether an item of a list does not name a finding that is present."""
    if finding_phrases.SIGNS.search(item):
        return True
    known = findings.is_known_finding(unnumbered(item))
    return not known and (finding_phrases.is_unclear(item) or finding_phrases.is_text(item))


def _check_items(cells: pd.Series, codes: np.ndarray, parts: Sequence[Sequence[str]], absent: str) -> None:
    """Raise for the first cell with an item that is negated, uncertain, not assessed or a text."""
    for number, words in enumerate(parts):
        wrong = [word for word in words if not _is_nothing(word) and word != absent and unnamed(word)]
        if not wrong:
            continue
        if cells.name is None:
            raise ValueError(
                f"The class folder {shown(wrong[0])} does not name a finding that is present. Rename the folder, use "
                "'normal' for images without findings, or pass --classes no."
            )
        line = cells.index[int((codes == number).argmax())] + 2
        text = finding_phrases.is_text(wrong[0])
        reports = f" If the column contains reports, pass --report-columns {cells.name}." if text else ""
        raise ValueError(
            f"The column {cells.name!r} has {shown(wrong[0])} in line {line}, but a list may only contain the names of "
            "findings that are present, or 'No Finding'. Use one column per finding instead, with 1, 0, -1 (uncertain) "
            f"or blank, and choose these with --label-columns.{reports}"
        )


def _is_nothing(item: str) -> bool:
    """Whether an item of a list means that there are no findings: 'No Finding', 'negative', '0'."""
    return item.lower() in NOTHING or (vocabulary_name(item) == "No_Finding" and not finding_phrases.SIGNS.search(item))


def is_one_list(chosen: Sequence[str], found: pd.DataFrame) -> bool:
    """Whether the labels were read from one column with lists of findings."""
    return len(chosen) == 1 and list(found.columns) != [vocabulary_name(chosen[0])]


def vocabulary_name(name: str) -> str:
    """The vocabulary's name, or the name itself in letters, digits and '_', as findings may be custom. A number before
    a known name is removed: '0_normal' is normal."""
    if findings.is_known_finding(name):
        return findings.canonical(name)
    bare = unnumbered(name)
    return (
        findings.canonical(bare)
        if findings.is_known_finding(bare)
        else re.sub(r"\W+", "_", name).strip("_") or "unnamed"
    )


def unnumbered(name: str) -> str:
    """A class without a leading number: '1_abnormal' → 'abnormal'; 'stage 1' and '2nd' are unchanged."""
    return re.sub(r"^\s*\d+\s*[-_.) ]\s*(?=\D)", "", name)


def views(column: pd.Series) -> pd.Series:
    """PA, AP, LATERAL or "" for anything else, with a warning."""
    meant = {cell: view_name(cell) for cell in column.unique()}
    found = column.map(meant).astype("str")
    coded_columns.report_unread(column, (found == "").to_numpy(), "Views that are neither PA, AP nor lateral")
    return found


def are_slices(rows: pd.DataFrame, view_column: str = "") -> pd.Series:
    """Which rows are slices of CT or MR, by the words of their view and of a column such as 'modality'."""
    said = dict.fromkeys(name for name in (view_column, column_named(list(rows.columns), MODALITY)) if name)
    found = pd.Series(False, rows.index)
    for name in said:
        slices = [cell for cell in rows[name].unique() if _is_slice({*_tokens(cell)})]
        found |= rows[name].isin(slices)
    return found


def _is_slice(words: set[str]) -> bool:
    """'AP AXIAL' is a projection with a tilted beam; 'Axial' alone is a slice."""
    return not SLICES_SET.isdisjoint(words) and words.isdisjoint(("ap", "pa"))


def view_name(cell: str) -> str:
    """PA, AP, LATERAL or "", by the words of a cell such as 'AP Supine'."""
    words = {*_tokens(cell), findings.plain_letters(cell)}
    if _is_slice(words):
        return ""
    return next((view for view, known in VIEWS.items() if not words.isdisjoint(known)), "")


def names_a_view(name: str) -> bool:
    """Whether a name consists of the words of a view: PA, lateral, 'AP supine', frontal."""
    words = {*_tokens(name)} - {"view"}
    return bool(words) and words <= VIEW_WORDS | FRONTAL


def _tokens(cell: str) -> list[str]:
    """The words of a cell, in lower case."""
    return re.findall(r"[^\W_]+", cell.casefold())


def splits(column: pd.Series, name: str) -> pd.Series:
    """train, val, test, "", and custom names in a column that also has train. Without a row for training, an unusual
    name is an error, as the column may be something else."""
    words = column.str.strip()
    usual = words.str.lower().map(SPLIT_WORDS)
    strange = column[usual.isna() & (words != "")]
    if (usual == "train").any() and strange.nunique() <= MOST_SPLITS:
        if len(strange):
            counts = ", ".join(f"{name} {count:,}" for name, count in words[strange.index].value_counts().items())
            log.warning("Splits with custom names: %s. 'evaluate --split NAME' can use them.", counts)
        return usual.where(usual.notna(), words).astype("str")
    if len(strange):
        raise ValueError(
            f"The column {name!r} contains {shown(strange.iloc[0])}, which is not a split (train, val or test). "
            f"Choose another column with --split-column, or pass --split-column none."
        )
    return usual.fillna("").astype("str")


def _is_listed(name: str, cells: pd.Series) -> bool:
    """Whether a column has lists: by its name, unless its cells are yes/no; under another name, if all cells are
    findings."""
    if findings.is_known_finding(name):
        return False
    unique = [cell.strip().lower() for cell in cells.unique()]
    words = [word for cell in unique if _label(cell) == STRANGE for word in _parts(cell)]
    yes_or_no = any(NUMBER.fullmatch(cell) or _label(cell) in (1, -1) for cell in unique)
    called_so = bool(column_named([name], LISTS))
    return bool(words) and not yes_or_no and (called_so or all(map(findings.is_known_finding, words)))


def _labels(cells: pd.Series) -> pd.Series:
    """1, 0, -1, NaN, or STRANGE for a cell that is not a label."""
    codes, unique = pd.factorize(cells)
    return pd.Series(np.array([_label(cell) for cell in unique], np.float32)[codes], index=cells.index)


def _label(cell: str) -> float:
    word = cell.strip().lower()
    if NUMBER.fullmatch(word):
        return float(word) if float(word) in (1, 0, -1) else STRANGE
    return LABEL_WORDS.get(word, STRANGE)


def _parts(cell: str, alone: Collection[str] = ()) -> list[str]:
    """The findings in 'Effusion|Mass'. A comma or slash may be part of a name: it separates where one of the pieces is
    a known finding, or is the whole of another cell (`alone`)."""
    parts = []
    for part in re.split(r"[|;；、]", cell):
        pieces = [piece.strip() for piece in re.split(r"[,，]|(?<!\b[rwRW])/", part) if piece.strip()]
        known = [
            piece
            for piece in pieces
            if findings.is_known_finding(unnumbered(piece)) or findings.plain_letters(piece) in alone
        ]
        parts += pieces if known else [part.strip()]
    return [part for part in parts if math.isfinite(LABEL_WORDS.get(part.lower(), 0)) and not _is_view(part)]


def _is_view(part: str) -> bool:
    """Whether an item of a list is a view, not a finding: 'AP' in 'Normal; AP'. A single letter is ambiguous."""
    return len(part) > 1 and not findings.is_known_finding(part) and {*_tokens(part)} <= VIEW_WORDS


def _say_commas(cells: Sequence[str], parts: Sequence[Sequence[str]]) -> None:
    """Warn how a comma or slash was read where not all of its pieces are known findings."""
    doubtful = {
        cell: words
        for cell, words in zip(cells, parts, strict=True)
        if re.search(r"[^|;；、,，/\s]\s*[,，/]\s*[^|;；、,，/\s]", cell)
        and not all(map(findings.is_known_finding, words))
    }
    if doubtful:
        said = [f"{cell[:60]!r} as {' and '.join(words)[:80]}" for cell, words in list(doubtful.items())[:5]]
        more = ", …" if len(doubtful) > len(said) else ""
        log.warning("Read %s%s. Use '|' between findings to avoid ambiguity.", ", ".join(said), more)


def whole_numbers(patients: pd.Series) -> pd.Series:
    """Identifiers without the '.0' that programs append to a column of numbers with blank cells. If any identifier is
    not a whole number, all are unchanged."""
    unique = [name for name in patients.unique() if name]
    if not all(re.fullmatch(r"\d+(\.0+)?", name) for name in unique):
        return patients
    return patients.str.partition(".")[0].astype("str")


def _in_order(name: str) -> tuple[int, str]:
    return (findings.FINDINGS.index(name) if name in findings.FINDINGS else len(findings.FINDINGS), name)


def column_named(header: Sequence[str], names: str) -> str:
    """The first column with one of these names, most usual first; "" if there is none."""
    known = {findings.plain_letters(name): name for name in reversed(header)}
    usual = map(findings.plain_letters, names.split())
    return next((known[name] for name in usual if name in known), "")
