"""Terms of DICOM elements that may be repeated in notes, warnings and responses. Other text may contain the name of a
patient, and is replaced by `OTHER` or omitted."""

import re

OTHER = "OTHER"
"""A value that is no defined term."""
RADIOGRAPHS = ("", "CR", "DX", "RG", "DR", "OT", "SC")
"""Modalities of plain radiography, and unspecific ones."""
SLICES = ("CT", "MR", "PT")
"""Modalities whose images are slices."""
_MODALITIES = (
    "AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DR DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT "
    "IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG "
    "RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SC SEG SM SMR SR SRF STAIN TEXTUREMAP TG US "
    "VA XA XAPROTOCOL XC"
)
MODALITIES = frozenset(_MODALITIES.split())
"""Modality (0008,0060), PS3.3 C.7.3.1.1.1, and two terms in common use that are no defined terms (DR, SC)."""
CHEST = ("CHEST", "THORAX", "TORAX", "LUNG", "RIB", "STERNUM", "HEART", "BRUSTKORB", "胸", "肺")
"""Body parts that are in a chest radiograph."""
_BODY_PARTS = (
    "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST BRONCHUS BUTTOCK CALCANEUS CALF "
    "CAROTID CEREBELLUM CERVIX CHEEK CLAVICLE COCCYX COLON CSPINE CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE "
    "FACE FEMUR FIBULA FINGER FOOT FOREARM GALLBLADDER HAND HEAD HEADNECK HIP HUMERUS ILEUM ILIUM JAW KIDNEY KNEE "
    "LARYNX LEG LIVER LSPINE LSSPINE MANDIBLE MAXILLA MEDIASTINUM MOUTH NECK NOSE ORBIT PANCREAS PATELLA PELVIS "
    "PHANTOM PROSTATE RADIUS RECTUM SACRUM SCALP SCAPULA SHOULDER SINUS SKULL SPINE SPLEEN SSPINE STOMACH TEETH TESTIS "
    "THIGH THUMB THYMUS THYROID TIBIA TLSPINE TOE TONGUE TRACHEA TSPINE ULNA URETER URETHRA UTERUS WHOLEBODY WRIST "
    "ZYGOMA"
)
BODY_PARTS = frozenset(_BODY_PARTS.split())
"""Body Part Examined (0018,0015), PS3.16 annex L, without those in `CHEST`."""
MANUFACTURERS = {
    **{"AGFA": "Agfa", "CANON": "Canon", "CARESTREAM": "Carestream", "DRGEM": "DRGEM", "FUJI": "Fujifilm"},
    **{"FUJIFILM": "Fujifilm", "GE": "GE", "GEHC": "GE", "GEMS": "GE", "HOLOGIC": "Hologic", "KODAK": "Kodak"},
    **{"KONICA": "Konica Minolta", "MINDRAY": "Mindray", "PHILIPS": "Philips", "SAMSUNG": "Samsung"},
    **{"SHIMADZU": "Shimadzu", "SIEMENS": "Siemens", "SWISSRAY": "Swissray", "TOSHIBA": "Toshiba"},
    **{"LODOX": "Lodox", "DELFT": "Delft", "VIEWORKS": "Vieworks", "WANDONG": "Wandong", "ANGELL": "Angell"},
    **{
        "NEUSOFT": "Neusoft",
        "VAREX": "Varex",
        "VARIAN": "Varian",
        "VILLA": "Villa",
        "VIDAR": "Vidar",
        "RAYENCE": "Rayence",
    },
}
"""Makers of radiography systems, by a word of Manufacturer (0008,0070)."""
_WINDOWS = (
    "ABD ABDOMEN ALGO ALTERNATE AND AUTO BONE BONES BRAIN BRIGHT CHEST CONTRAST CT DARK DEFAULT FOR FULL HARD HARDER "
    "HEAD HEART HIGH LINEAR LIVER LOW LUNG LUNGS LUT MANUAL MEDIASTINAL MEDIASTINUM MEDIUM MIN NARROW NECK "
    "NORMAL ORIGINAL PELVIS PRESENTATION PRESET PROCESSED RANGE RIB RIBS SIGMOID SKIN SMOOTH SOFT SOFTER SPINE "
    "STANDARD THORAX TISSUE USER VOI WIDE WIDTH WINDOW"
)
WINDOWS = frozenset(_WINDOWS.split())
"""Words of the explanations of windows and VOI LUTs."""
LONGEST = 24
"""Letters of an explanation that is repeated."""


def modality(text: str) -> str:
    """The defined term of a modality; "" without one."""
    term = text.strip().upper()
    return term if not term or term in MODALITIES else OTHER


def body_part(text: str) -> str:
    """The defined term of a body part, CHEST for all parts of the chest; "" without one."""
    upper = text.strip().upper()
    if not upper:
        return ""
    if any(part in upper for part in CHEST):
        return "CHEST"
    words = re.findall(r"[A-Z]+", upper)
    return next((word for word in ("".join(words), *words) if word in BODY_PARTS), OTHER)


def manufacturer(text: str) -> str:
    """The name of a known manufacturer; "" for all others."""
    words = re.findall(r"[A-Z]+", text.upper())
    return next((MANUFACTURERS[word] for word in words if word in MANUFACTURERS), "")


def explanation(text: str) -> str:
    """The explanation of a window or VOI LUT, if all its words are known; otherwise ""."""
    words = re.findall(r"[^\W\d_]+", text.upper())
    known = bool(words) and len(text) <= LONGEST and WINDOWS.issuperset(words)
    return text if known and re.fullmatch(r"[\w /+.-]+", text) else ""


def unlike_chest(tags: dict[str, str]) -> list[str]:
    """Reasons in the tags of an image to doubt that it is a chest radiograph."""
    kind, part = modality(tags.get("modality", "")), body_part(tags.get("body", ""))
    against = []
    if kind not in RADIOGRAPHS:
        against.append(f"not a plain radiograph: the DICOM modality is {_shown(kind)}")
    if part not in ("", "CHEST"):
        against.append(f"possibly not a chest radiograph: the DICOM body part is {_shown(part)}")
    return against


def _shown(term: str) -> str:
    return "not a valid DICOM term" if term == OTHER else term
