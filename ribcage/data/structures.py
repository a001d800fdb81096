"""Structures: names of anatomical structures in masks and points, beside those of findings.

Left and right are those of the patient: Left_Lung is on the right side of a frontal image.
"""

from ribcage.data.findings import plain_letters, vocabulary_finding

CHINESE = {
    "Left_Lung": "左肺",
    "Right_Lung": "右肺",
    "Lungs": "双肺",
    "Heart": "心脏",
    "Left_Clavicle": "左锁骨",
    "Right_Clavicle": "右锁骨",
    "Clavicles": "双侧锁骨",
    "Ribs": "肋骨",
    "Spine": "脊柱",
    "Trachea": "气管",
    "Aorta": "主动脉",
    "Mediastinum": "纵隔",
    "Left_Hilum": "左肺门",
    "Right_Hilum": "右肺门",
    "Left_Diaphragm": "左膈肌",
    "Right_Diaphragm": "右膈肌",
    "Chest_Tube": "胸腔引流管",
}
STRUCTURES = tuple(CHINESE)
SYNONYMS = {
    "Lungs": ("Lung", "Lung Fields", "Both Lungs", "肺"),
    "Heart": ("Cardiac Silhouette", "心影"),
    "Clavicles": ("Clavicle", "锁骨"),
}
WHOLES = {"Lungs": ("Left_Lung", "Right_Lung"), "Clavicles": ("Left_Clavicle", "Right_Clavicle")}
"""Structures that consist of a left and a right one."""
_WORDS = {plain_letters(word): name for name in STRUCTURES for word in (name, CHINESE[name], *SYNONYMS.get(name, ()))}


def structure_name(name: str) -> str:
    """The vocabulary's name of a structure or finding; a name outside the vocabulary is unchanged."""
    return _WORDS.get(plain_letters(name)) or vocabulary_finding(name) or name


def mirrored_name(name: str) -> str:
    """The name of a structure in a mirrored image: the left lung looks like a right one."""
    for side, other in (("Left_", "Right_"), ("Right_", "Left_")):
        if name.startswith(side):
            return other + name.removeprefix(side)
    return name
