"""Columns: what the columns of somebody's own table mean, by their names and by the words in their cells."""

import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ribcage import findings
from ribcage.spelling import did_you_mean

# role -> the names it goes by, the usual first; compared without case, spaces and punctuation
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
# names of columns that hold lists of findings, such as 'Effusion|Mass'
LISTS = (
    "labels finding_labels label findings finding diagnosis diagnoses class category target "
    "诊断 诊断结果 征象 疾病 标签"
)

SPLITS = {
    "train": ("train", "training", "tr", "训练", "训练集"),
    "val": ("val", "valid", "validation", "validate", "dev", "tune", "验证", "验证集"),
    "test": ("test", "testing", "eval", "holdout", "测试", "测试集"),
}
VIEWS = {
    "PA": ("pa", "postero-anterior", "posteroanterior", "后前位"),
    "AP": ("ap", "antero-posterior", "anteroposterior", "前后位", "床旁", "仰卧位"),
    "LATERAL": ("lateral", "lat", "l", "ll", "rl", "left lateral", "right lateral", "侧位", "左侧位", "右侧位"),
}
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
# numbers are read as numbers: 1, 1.0 and 1.00 are the same
LABELS = {
    1.0: ("yes", "y", "true", "t", "pos", "positive", "present", "+", "阳性", "有", "是"),
    0.0: ("no", "n", "false", "f", "neg", "negative", "absent", "-", "阴性", "无", "否"),
    -1.0: ("uncertain", "u", "?", "equivocal", "不确定", "可疑"),
    np.nan: ("", "nan", "na", "n/a", "none", "null", "unknown", ".", "未知"),
}
STRANGE = 9.0
# in a list; a letter or a sign could be anything there
NOTHING = ("0", *(word for word in LABELS[0.0] if len(word) > 1 or not word.isascii()))
SPLIT_WORDS = {word: part for part, known in SPLITS.items() for word in known}
VIEW_WORDS = {word: view for view, known in VIEWS.items() for word in known}
LABEL_WORDS: dict[str, float] = {word: value for value, known in LABELS.items() for word in known}


def roles(header: Sequence[str], given: dict[str, str]) -> dict[str, str]:
    """Role -> column: the one given ('none' for no column), else the first that goes by a usual name."""
    wrong = [
        f"--{role.replace('_', '-')}-column {name!r}: no such column.{did_you_mean(name, header)}"
        for role, name in given.items()
        if name not in ("", "none", *header)
    ]
    if wrong:
        raise ValueError(f"{' '.join(wrong)} {among(header)}")
    found = {role: given.get(role) or named(header, names) for role, names in ROLES.items()}
    return {role: name for role, name in found.items() if name not in ("", "none")}


def among(header: Sequence[str]) -> str:
    """The columns there are, for the end of an error."""
    garbled = " If these names look wrong, give --encoding." if not all(map(str.isascii, header)) else ""
    return f"Columns: {', '.join(header[:40])}.{garbled}"


def label_columns(header: Sequence[str], taken: Sequence[str], given: Sequence[str]) -> list[str]:
    """The columns with labels: those given, else all that are named after findings, else one with lists of findings."""
    wrong = [f"{name!r}{did_you_mean(name, header)}" for name in given if name not in header]
    if wrong:
        raise ValueError(f"--label-columns: there is no {', no '.join(wrong)} {among(header)}")
    free = [name for name in header if name not in taken]
    known = [name for name in free if findings.known(name)]
    listed = named(free, LISTS)
    return list(given) or known or ([listed] if listed else [])


def labels(rows: pd.DataFrame, chosen: Sequence[str]) -> pd.DataFrame:
    """One column of 1, 0, -1 or NaN per finding, from columns of yes and no or one of lists like 'Effusion|Mass'."""
    if len(chosen) == 1 and _is_listed(chosen[0], rows[chosen[0]]):
        return listed(rows[chosen[0]])
    values = {name: _labels(rows[name]) for name in chosen}
    strange = {
        name: int((found == STRANGE).to_numpy().argmax()) for name, found in values.items() if STRANGE in set(found)
    }
    if strange:
        said = [f"{name} holds {rows[name].iloc[at]!r} in line {rows.index[at] + 2}" for name, at in strange.items()]
        raise ValueError(
            f"Labels are 1, 0, -1 (uncertain), yes, no, or blank: {'; '.join(said)}. "
            "Mend that, or choose the columns with --label-columns."
        )
    found = pd.DataFrame(values, index=rows.index, dtype="float32")
    found.columns = pd.Index([finding(name) for name in chosen])
    twice = found.columns[found.columns.duplicated()]
    if len(twice):
        raise ValueError(f"Two label columns mean {twice[0]}. Choose with --label-columns.")
    return found


def listed(cells: pd.Series) -> pd.DataFrame:
    """Labels from cells such as 'Effusion|Mass'. 'Normal' is the row without findings, a blank cell says nothing."""
    codes, unique = pd.factorize(cells.str.strip())
    sets = [{"No_Finding" if word.lower() in NOTHING else finding(word) for word in _parts(cell)} for cell in unique]
    names = sorted(set().union(*sets) - {"No_Finding"}, key=_in_order)
    known = np.array([[float(name in each) if each else np.nan for name in names] for each in sets], np.float32)
    return pd.DataFrame(known.reshape(len(sets), len(names))[codes], columns=names, index=cells.index)


def finding(name: str) -> str:
    """The vocabulary's word, or the name itself in letters, digits and '_': people have findings of their own."""
    return findings.canonical(name) if findings.known(name) else re.sub(r"\W+", "_", name).strip("_") or "unnamed"


def splits(column: pd.Series, name: str) -> pd.Series:
    """train, val, test or ""; a word that is none of them is an error."""
    strange = column[~column.str.strip().str.lower().isin(["", *SPLIT_WORDS])]
    if len(strange):
        raise ValueError(
            f"The column {name!r} holds {strange.iloc[0]!r}, which is no split (train, val, test). "
            f"Choose another with --split-column, or none."
        )
    return column.str.strip().str.lower().map(SPLIT_WORDS).fillna("").astype("str")


def _is_listed(name: str, cells: pd.Series) -> bool:
    """Whether a column holds lists: by its name, unless it says yes and no; under another name, if all are findings."""
    if findings.known(name):
        return False
    unique = [cell.strip().lower() for cell in cells.unique()]
    words = [word for cell in unique if _label(cell) == STRANGE for word in _parts(cell)]
    yes_or_no = any(NUMBER.fullmatch(cell) or _label(cell) in (1, -1) for cell in unique)
    called_so = bool(named([name], LISTS))
    return bool(words) and not yes_or_no and (called_so or all(map(findings.known, words)))


def _labels(cells: pd.Series) -> pd.Series:
    """1, 0, -1, NaN, or STRANGE for a cell that is no label."""
    codes, unique = pd.factorize(cells)
    return pd.Series(np.array([_label(cell) for cell in unique], np.float32)[codes], index=cells.index)


def _label(cell: str) -> float:
    word = cell.strip().lower()
    if NUMBER.fullmatch(word):
        return float(word) if float(word) in (1, 0, -1) else STRANGE
    return LABEL_WORDS.get(word, STRANGE)


def _parts(cell: str) -> list[str]:
    """The findings in 'Effusion|Mass'. A comma or slash may be part of a name: it counts between known ones only."""
    parts = []
    for part in re.split(r"[|;；、]", cell):
        pieces = [piece.strip() for piece in re.split(r"[,，/]", part) if piece.strip()]
        parts += pieces if all(map(findings.known, pieces)) else [part.strip()]
    return [part for part in parts if math.isfinite(LABEL_WORDS.get(part.lower(), 0))]


def _in_order(name: str) -> tuple[int, str]:
    return (findings.FINDINGS.index(name) if name in findings.FINDINGS else len(findings.FINDINGS), name)


def named(header: Sequence[str], names: str) -> str:
    """The first column that goes by one of these names, the usual first; "": there is none."""
    known = {findings.plain(name): name for name in reversed(header)}
    usual = map(findings.plain, names.split())
    return next((known[name] for name in usual if name in known), "")
