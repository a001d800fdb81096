"""Findings: one vocabulary for every dataset."""

import re
from collections.abc import Iterable

# ChestX-ray14, in the order of its published lists; the underscore is theirs, too.
CHESTXRAY14 = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
# CheXpert and MIMIC-CXR-JPG, in the order of the CheXpert csv.
CHEXPERT14 = (
    "No_Finding",
    "Enlarged_Cardiomediastinum",
    "Cardiomegaly",
    "Lung_Opacity",
    "Lung_Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Effusion",
    "Pleural_Other",
    "Fracture",
    "Support_Devices",
)
# The five that the CheXpert competition scores, in its order.
CHEXPERT5 = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Effusion")

CHINESE = {
    "Atelectasis": "肺不张",
    "Cardiomegaly": "心脏扩大",
    "Effusion": "胸腔积液",
    "Infiltration": "肺浸润",
    "Mass": "肿块",
    "Nodule": "结节",
    "Pneumonia": "肺炎",
    "Pneumothorax": "气胸",
    "Consolidation": "肺实变",
    "Edema": "肺水肿",
    "Emphysema": "肺气肿",
    "Fibrosis": "肺纤维化",
    "Pleural_Thickening": "胸膜增厚",
    "Hernia": "膈疝",
    "No_Finding": "未见异常",
    "Enlarged_Cardiomediastinum": "心纵隔增宽",
    "Lung_Opacity": "肺部阴影",
    "Lung_Lesion": "肺部病灶",
    "Pleural_Other": "其他胸膜病变",
    "Fracture": "骨折",
    "Support_Devices": "支持装置",
    "Tuberculosis": "肺结核",
    "COVID_19": "新冠肺炎",
    "Aortic_Enlargement": "主动脉增宽",
    "Calcification": "钙化",
    "Enlarged_Pulmonary_Artery": "肺动脉增宽",
    "Interstitial_Lung_Disease": "间质性肺疾病",
    "Lung_Cavity": "肺空洞",
    "Lung_Cyst": "肺囊肿",
    "Mediastinal_Shift": "纵隔移位",
    "Diffuse_Nodule": "弥漫性结节",
    "Nodule_or_Mass": "结节或肿块",  # one label in VinDr-CXR
    "Other_Lesion": "其他病变",
    "COPD": "慢性阻塞性肺疾病",
    "Lung_Tumor": "肺部肿瘤",
    "Other_Disease": "其他疾病",
    "Foreign_Object": "异物",
    # VinDr-PCXR, in children
    "Bronchitis": "支气管炎",
    "Bronchopneumonia": "支气管肺炎",
    "Bronchiolitis": "细支气管炎",
    "Situs_Inversus": "内脏反位",
    "Pleuropneumonia": "胸膜肺炎",
    "Diaphragmatic_Hernia": "先天性膈疝",
    "Congenital_Emphysema": "先天性肺气肿",
    "CPAM": "先天性肺气道畸形",
    "Hyaline_Membrane_Disease": "肺透明膜病",
    "Mediastinal_Tumor": "纵隔肿瘤",
    "Boot_Shaped_Heart": "靴形心",
    "Peribronchovascular_Opacity": "支气管血管周围间质影",
    "Reticulonodular_Opacity": "网状结节影",
    "Bronchial_Thickening": "支气管壁增厚",
    "Diffuse_Alveolar_Opacity": "弥漫性肺泡影",
    "Other_Opacity": "其他阴影",
    "Anterior_Mediastinal_Mass": "前纵隔肿块",
    "Dextrocardia": "右位心",
    "Right_Sided_Stomach": "右位胃泡",
    "Hyperinflation": "肺过度充气",
    "Egg_on_String_Sign": "蛋形心",
    "Chest_Wall_Mass": "胸壁肿块",
    "Bronchiectasis": "支气管扩张",
    "Expanded_Anterior_Ribs": "前肋端膨大",
    "Paravertebral_Mass": "椎旁肿块",
    "Intrathoracic_Digestive_Structure": "胸腔内消化道结构",
}
FINDINGS = tuple(CHINESE)

SYNONYMS = {
    "Atelectasis": ("Atelectases", "肺膨胀不全"),
    "Cardiomegaly": ("Enlarged Heart", "心影增大", "心脏增大"),
    "Effusion": ("Pleural Effusion", "积液", "胸水"),
    "Infiltration": ("Infiltrate", "Infiltrates", "浸润", "浸润影", "渗出", "渗出影"),
    "Mass": ("Lung Mass", "肺肿块"),
    "Nodule": ("Lung Nodule", "Pulmonary Nodule", "肺结节"),
    "Consolidation": ("实变",),
    "Edema": ("Oedema", "Pulmonary Edema", "Pulmonary Oedema", "水肿"),
    "Fibrosis": ("Pulmonary Fibrosis", "纤维化"),
    "Hernia": ("Hiatal Hernia", "Hiatus Hernia", "疝", "食管裂孔疝"),
    "No_Finding": (
        "No Findings",
        "Normal",
        "Healthy",
        "No Significant Abnormality",
        "正常",
        "无异常",
        "无明显异常",
        "未见明显异常",
    ),
    "Enlarged_Cardiomediastinum": ("Widened Mediastinum", "纵隔增宽"),
    "Lung_Opacity": ("Airspace Opacity", "Opacity", "Opacities", "肺部不透光影", "阴影"),
    "Lung_Lesion": ("Lesion", "肺部病变"),
    "Fracture": ("Fractures", "Rib Fracture", "肋骨骨折"),
    "Support_Devices": ("Support Device", "Medical Devices", "医疗装置"),
    "Tuberculosis": ("TB", "结核"),
    "COVID_19": ("COVID", "新型冠状病毒肺炎"),
    "Interstitial_Lung_Disease": ("ILD", "间质性肺病"),
    "COPD": ("Chronic Obstructive Pulmonary Disease", "慢阻肺"),
    "Lung_Tumor": ("Lung Tumour", "肺肿瘤"),
}

# Names that have a different meaning in one dataset.
DATASET_NAMES = {
    "nih": {"Pleural Thickening": "Pleural_Thickening"},
    "rsna": {"Target": "Lung_Opacity", "1": "Lung_Opacity"},  # the challenge scored opacities that suggest pneumonia
    "medmnist": {"pleural": "Pleural_Thickening"},
    "vindr": {"Clavicle fracture": "Fracture", "Enlarged PA": "Enlarged_Pulmonary_Artery",
              "Nodule/Mass": "Nodule_or_Mass", "Other diseases": "Other_Disease"},
    # with the spelling of the published tables
    "vindr_pcxr": {"Brocho-pneumonia": "Bronchopneumonia", "Pleuro-pneumonia": "Pleuropneumonia",
                   "Diagphramatic hernia": "Diaphragmatic_Hernia", "Enlarged PA": "Enlarged_Pulmonary_Artery",
                   "Peribronchovascular interstitial opacity": "Peribronchovascular_Opacity",
                   "Diffuse aveolar opacity": "Diffuse_Alveolar_Opacity", "Bronchectasis": "Bronchiectasis",
                   "Stomach on the right side": "Right_Sided_Stomach", "Lung hyperinflation": "Hyperinflation",
                   "Interstitial lung disease - ILD": "Interstitial_Lung_Disease",
                   "Other nodule/mass": "Nodule_or_Mass", "Clavicle fracture": "Fracture",
                   "Expanded edges of the anterior ribs": "Expanded_Anterior_Ribs",
                   "Paraveterbral mass": "Paravertebral_Mass"},
}  # fmt: skip


def canonical(name: str, dataset: str | None = None) -> str:
    """The vocabulary's name of a finding that a dataset, or a user, calls `name`."""
    bare = plain_letters(name)
    own = {plain_letters(word): finding for word, finding in DATASET_NAMES.get(dataset or "", {}).items()}
    found = own.get(bare) or _WORDS.get(bare)
    if found is None:
        hint = f" Did you mean {closest_finding(name)!r}?" if closest_finding(name) else ""
        raise ValueError(f"Unknown finding {name!r}.{hint} Findings: {', '.join(FINDINGS)}.")
    return found


def names_of(dataset: str, words: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Finding → its names in a dataset, from all names in its tables."""
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        finding = canonical(word, dataset)
        found[finding] = (*found.get(finding, ()), word)
    return found


def is_known_finding(name: str) -> bool:
    """Whether the vocabulary has this finding under any name."""
    return plain_letters(name) in _WORDS


def closest_finding(name: str) -> str:
    """The finding that an unknown name is probably a misspelling of, or "".

    At most one letter in four may differ, and never the first: 'abnormal' is not 'normal', and short names are too
    similar.
    """
    word = plain_letters(name)
    if word in _WORDS:
        return ""
    close = [(apart, known) for known in _WORDS if known[:1] == word[:1] and (apart := _edits(word, known)) > 0]
    apart, near = min(close, default=(len(word), ""))
    return _WORDS[near] if near and apart <= len(word) // 4 and apart <= 2 else ""


def _edits(one: str, other: str) -> int:
    """Damerau-Levenshtein distance: insertions, deletions, substitutions and swaps of neighbours."""
    if abs(len(one) - len(other)) > 2:
        return 3
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b)))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


def chinese(finding: str) -> str:
    """The Chinese name of a finding; a name outside the vocabulary is unchanged."""
    return CHINESE.get(finding, finding)


def plain_letters(name: str) -> str:
    """Letters and digits only (of any script), in lower case."""
    return re.sub(r"[\W_]+", "", name).casefold()


_WORDS = {
    plain_letters(word): finding
    for finding in FINDINGS
    for word in (finding, CHINESE[finding], *SYNONYMS.get(finding, ()))
}


def vocabulary_finding(name: str) -> str:
    """The vocabulary's name of a finding, "" if it is unknown."""
    return _WORDS.get(plain_letters(name), "")
