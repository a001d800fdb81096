"""Small datasets on disk, each in the layout its makers ship. `TREES[name](folder)` builds one and returns its root."""

import gzip
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from ribcage.data import datasets
from ribcage.data.findings import CHESTXRAY14
from ribcage.data.index import Index

CHEXPERT_LABELS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + CHEXPERT_LABELS
NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
MIMIC_METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
MIMIC_LABELS = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
    "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)


SIDE = 32
"""Width and height of the images."""


def image(file: Path, seed: int = 0, side: int = SIDE) -> Path:
    """A little gray image in the format its name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    if file.suffix in (".dcm", ".dicom"):
        dicom(file, pixels)
    else:
        file.write_bytes(cv2.imencode(file.suffix, pixels)[1].tobytes())
    return file


def mask(file: Path, seed: int = 0, side: int = SIDE) -> Path:
    """A rectangle as a mask of two gray levels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((side, side), np.uint8)
    pixels[side // 4 : side // 2 + seed % 4, side // 4 :] = 255
    file.write_bytes(cv2.imencode(file.suffix, pixels)[1].tobytes())
    return file


def dicom(file: Path, pixels: np.ndarray, patient: str = "") -> None:
    """A plain 8-bit chest radiograph in DICOM."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = "1.2.840.10008.5.1.4.1.1.1", f"1.2.3.{len(file.stem)}", "CR"
    data.PatientID, data.PatientSex, data.PatientAge, data.ViewPosition = patient or file.stem, "F", "051Y", "PA"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = pixels.tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(file, data, enforce_file_format=True)


def text(file: Path, *lines: str, encoding: str = "utf-8") -> Path:
    """A text file; .gz and .zip are compressed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = ("\n".join(lines) + "\n").encode(encoding)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(content, mtime=0))
    elif file.suffix == ".zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(file.stem, content)
    else:
        file.write_bytes(content)
    return file


def images(folder: Path, names: Iterable[str]) -> None:
    """An image under each name, the last one first: order on disk must not matter."""
    for seed, name in enumerate(sorted(names, reverse=True)):
        image(folder / name, seed)


# ---- ChestX-ray14

NIH_ROWS = [  # name, labels, follow-up, patient, age, sex, view
    (f"{patient:08d}_{follow:03d}.png", labels, follow, patient, f"0{40 + patient}Y", "MF"[patient % 2], view)
    for patient in range(1, 11)
    for follow, (labels, view) in enumerate(
        [("No Finding", "PA"), ("Effusion|Mass", "AP"), ("Pleural_Thickening", "PA")]
    )
]


def nih(folder: Path) -> Path:
    """The download: images_001/images … and both families of lists."""
    names = [row[0] for row in NIH_ROWS]
    nih_table(folder / "Data_Entry_2017_v2020.csv")
    images(folder, [f"images_{1 + place % 2:03d}/images/{name}" for place, name in enumerate(names)])
    text(folder / "train_val_list.txt", *names[:21])
    text(folder / "test_list.txt", *names[21:])
    bits = {row[0]: " ".join(str(int(name in row[1].split("|"))) for name in CHESTXRAY14) for row in NIH_ROWS}
    for part, chosen in {"train": names[9:], "val": names[6:9], "test": names[:6]}.items():
        text(folder / "arnoweng" / f"{part}_list.txt", *(f"{name} {bits[name]}" for name in chosen))
    text(
        folder / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,",
        f"{names[1]},Infiltrate,100.5,200.25,300,400.5",
        f"{names[1]},Effusion,0,0,10,20",
        "99999999_000.png,Mass,1,2,3,4",
    )
    return folder


def nih_table(file: Path, rows: Sequence[tuple[object, ...]] = NIH_ROWS, comma: str = "") -> Path:
    lines = [",".join(map(str, row)) + ",2500,2048,0.168,0.168" + comma for row in rows]
    return text(file, NIH_HEADER + comma, *lines)


# ---- CheXpert


def chexpert_lines(part: str, prefix: str, patients: Iterable[int]) -> list[str]:
    lines = []
    for patient in patients:
        start = f"{prefix}/{part}/patient{patient:05d}/study1/view"
        lines.append(f"{start}1_frontal.jpg,Female,68,Frontal,AP,,,1.0,,,-1.0,0.0,,,,1.0,,,1.0")
        lines.append(f"{start}2_lateral.jpg,Male,{patient},Lateral,,1.0,,,,,,,,,0.0,,,,")
    return lines


def chexpert(folder: Path, prefix: str = "CheXpert-v1.0-small", patients: int = 8) -> Path:
    """The small download, given by the folder above it."""
    for part, csv, numbers in (
        ("train", "train.csv", [*range(1, 9), *range(101, 93 + patients)]),
        ("valid", "valid.csv", range(11, 14)),
    ):
        lines = chexpert_lines(part, prefix, numbers)
        text(folder / prefix / csv, CHEXPERT_HEADER, *lines)
        images(folder, [line.partition(",")[0] for line in lines])
    return folder


def chexpert_batches(folder: Path) -> Path:
    """The full download: training images in three batch folders, without a folder 'train'."""
    first = folder / "CheXpert-v1.0 batch 1 (validate & csv)"
    train = chexpert_lines("train", "CheXpert-v1.0", range(1, 7))
    valid = chexpert_lines("valid", "CheXpert-v1.0", range(11, 13))
    text(first / "train.csv", CHEXPERT_HEADER, *train)
    text(first / "valid.csv", CHEXPERT_HEADER, *valid)
    for place, line in enumerate(train):
        batch = 2 + place // 4
        inside = line.partition(",")[0].removeprefix("CheXpert-v1.0/train/")
        image(folder / f"CheXpert-v1.0 batch {batch} (train {batch - 1})" / inside)
    for line in valid:
        image(first / line.partition(",")[0].removeprefix("CheXpert-v1.0/"))
    return folder


def chexpert_readers(folder: Path) -> Path:
    """A clone of the labels of the test set beside the images: the ground truth and three of eight radiologists."""
    root = chexpert(folder) / "CheXpert-v1.0-small"
    home = root / "cheXpert-test-set-labels"
    for place, name in enumerate(
        ("groundtruth", "groundtruth/bc1_gt", "groundtruth/bc2_gt", "benchmark_radiologists/bc4")
    ):
        bits = ["0"] * 14
        bits[2] = str(int(place != 2))
        rows = [f"CheXpert-v1.0/test/patient{patient}/study1,{','.join(bits)}" for patient in (64741, 64742)]
        file = home / f"{name}.csv" if place == 0 else home / "radiologists" / f"{name}.csv"
        text(file, "Study," + CHEXPERT_LABELS, *rows)
    names = ("64741/study1/view1_frontal", "64741/study1/view2_lateral", "64742/study1/view1_frontal")
    images(home, [f"test/patient{name}.jpg" for name in names])
    return root


# ---- CheXpert Plus

CHEXPERT_PLUS_HEADER = (
    "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,report,section_narrative,"
    "section_clinical_history,section_history,section_comparison,section_technique,section_procedure_comments,"
    "section_findings,section_impression,section_end_of_impression,section_summary,section_accession_number,age,sex,race,"
    "ethnicity,interpreter_needed,insurance_type,recent_bmi,deceased,split"
)


def chexpert_plus(folder: Path) -> Path:
    """The table, the labels of CheXbert as lines of JSON, PNG files, and the DICOM file of one image."""
    rows, labels, names = [], [], []
    for patient in range(1, 11):
        for number, view in enumerate(("frontal", "lateral"), 1):
            part = "valid" if patient > 8 else "train"
            place = f"{part}/patient{patient:05d}/study1/view{number}_{view}"
            names.append(f"PNG/{place}.png" if patient != 2 else f"DICOM/{place}.dcm")
            said = "NARR,fever,,none,,,clear\t lungs,1. ok,,SUMMARY,1" if patient != 3 else ",,,,,,,,,,1"
            report = '"NARRATIVE: x\n\nIMPRESSION: whole"' if patient == 3 else "all"
            rows.append(
                f"{place}.jpg,{place}.dcm,{view.title()},{'AP' if number == 1 else ''},patient{patient:05d},1,{report},{said},"
                f"{50 + patient}.0,{('Male', 'Female')[patient % 2]},Asian,Not Hispanic,No,Medicare,20.1,No,{part}"
            )
            values = dict.fromkeys(CHEXPERT_LABELS.split(","))
            values |= {"Edema": 1.0, "Fracture": 0.0, "Pneumonia": -1.0}
            labels.append(json.dumps({"path_to_image": f"{place}.jpg", **values}))
    text(folder / "df_chexpert_plus_240401.csv", CHEXPERT_PLUS_HEADER, *rows)
    text(folder / "chexbert_labels/impression_fixed.json", *labels)
    images(folder, names)
    return folder


# ---- MS-CXR


def ms_cxr(folder: Path) -> Path:
    """MIMIC-CXR-JPG with the table, some of whose images have two boxes or two phrases."""
    root = mimic(folder)
    rows = []
    for place, (patient, study, name, view) in enumerate(MIMIC_ROWS):
        if view == "PA":
            path = f"files/p10/p{patient}/s{study}/{name}.jpg"
            for box in range(1 + place % 2):
                kind = ("Pneumothorax", "Pleural Effusion", "Lung Opacity")[(place + box) % 3]
                split = ("train", "val", "test")[patient % 3]
                rows.append(
                    f'{name},{kind},"small, left {kind.lower()}",{path},{2 + box},3,10,12,{SIDE},{SIDE},{split}'
                )
    header = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split"
    text(root / "ms-cxr" / "MS_CXR_Local_Alignment_v1.1.0.csv", header, *rows)
    return root


# ---- object-CXR

OBJECTS = ("", "0 1 2 11 22;1 3 4 13 14", "2 5 6 25 6 15 30", "", "1 0 0 9 9")


def object_cxr(folder: Path) -> Path:
    """Both annotated tables, and the images in a folder of each."""
    for part, first in (("train", 1), ("dev", 8001)):
        names = [f"{first + place:05d}.jpg" for place in range(15)]
        rows = [f"{name},{OBJECTS[place % 5]}" for place, name in enumerate(names)]
        text(folder / f"{part}.csv", "image_name,annotation", *rows)
        images(folder / part, names)
    return folder


# ---- COVIDx


def covidx(folder: Path) -> Path:
    """Three lists, with spaces in some identifiers of patients, and the images in a folder of each."""
    for part, first in (("train", 0), ("val", 20), ("test", 30)):
        names = [f"COVID({first + place}).png" if place % 4 == 0 else f"img-{first + place}.jpg" for place in range(8)]
        rows = [
            f"{'COVID ' * (place % 4 == 0)}{first + place} {name} {('positive', 'negative')[place % 2]} "
            f"{('cohen', 'bimcv', 'rsna')[place % 3]}"
            for place, name in enumerate(names)
        ]
        text(folder / f"{part}.txt", *rows)
        images(folder / part, names)
    return folder


# ---- VinDr-PCXR

PCXR_LABELS = (
    "No finding,Bronchitis,Brocho-pneumonia,Other disease,Bronchiolitis,Situs inversus,Pneumonia,Pleuro-pneumonia,"
    "Diagphramatic hernia,Tuberculosis,Congenital emphysema,CPAM,Hyaline membrane disease,Mediastinal tumor,Lung tumor"
)
PCXR_BOXES = {
    1: ("Diffuse aveolar opacity,2,3,20,30", "Bronchial thickening,1,2,9.5,8"),
    2: ("Clavicle fracture,3,3,30,9",),
}


def vindr_pcxr(folder: Path) -> Path:
    """The download from PhysioNet: four tables, one radiologist for each image, and DICOM files in train and test."""
    for part, count in (("train", 24), ("test", 6)):
        ids = [f"{place:032x}" for place in range(100 * (part == "test"), 100 * (part == "test") + count)]
        labels, boxes = [], []
        for place, image_id in enumerate(ids):
            drawn = PCXR_BOXES.get(place % 3, ())
            positive = ("No finding", "Brocho-pneumonia", "Bronchitis")[place % 3]
            bits = [str(float(name == positive)) for name in PCXR_LABELS.split(",")]
            labels.append(f"{image_id},R{place % 3 + 1},{','.join(bits)}")
            boxes += [f"{image_id},R{place % 3 + 1},{box}" for box in drawn or ("No finding,,,,",)]
        text(folder / f"image_labels_{part}.csv", "image_id,rad_ID," + PCXR_LABELS, *labels)
        text(folder / f"annotations_{part}.csv", "image_id,rad_ID,class_name,x_min,y_min,x_max,y_max", *boxes)
        images(folder / part, [f"{image_id}.dicom" for image_id in ids])
    return folder


# ---- BRAX

BRAX_VIEWS = ("PA", "L", "AP", "AP LLD", "", "RL")
BRAX_AGES = ("45", "85 or more", "")


def brax(folder: Path) -> Path:
    """The table, with several studies per patient under repeated accession numbers, and PNG files in nested folders."""
    header = "DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate," + CHEXPERT_LABELS
    rows, names = [], []
    for place in range(24):
        patient, study = place // 4, place // 2 % 2
        inside = f"id_{patient:08x}/Study_{study}.{patient}/Series_{place}.1/image-{place}-{patient:08x}"
        names.append(f"images/{inside}.png")
        rows.append(
            f"Anonymized_DICOMs/{inside}.dcm,{names[-1]},id_{patient:08x},{'MFO'[patient % 3]},{BRAX_AGES[patient % 3]},"
            f"{study},20100101,0.0,,,0.0,,-1.0,,,,,1.0,,,,{BRAX_VIEWS[place % 6]},3480,4240,1"
        )
    text(folder / "master_spreadsheet_update.csv", header + ",ViewPosition,Rows,Columns,Manufacturer", *rows)
    images(folder, names)
    return folder


# ---- MIMIC-CXR-JPG

MIMIC_REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough  // study {}

 FINDINGS:

 The heart is normal.

 IMPRESSION:

 No acute process.
"""

MIMIC_ROWS = [  # patient, study, image, view
    (10000000 + patient, 50000000 + 10 * patient + study, f"{patient:08x}-{study:08x}-{view or 'none'}", view)
    for patient in range(1, 8)
    for study in range(2)
    for view in ("PA", "LL", "")
]


def mimic(folder: Path, labels: Sequence[str] = ("chexpert", "negbio"), under: str = "files") -> Path:
    """The tables, compressed, beside files/p10/p10000001/s50000010/….jpg; the last study has no labels."""
    name = "mimic-cxr-2.0.0-{}.csv.gz"
    meta = [
        f"{pic},{patient},{study},CHEST,{view},3056,2544,21800506,213014.531,,,"
        for patient, study, pic, view in MIMIC_ROWS
    ]
    part = {1: "test", 2: "validate"}
    split = [
        f"{pic},{study},{patient},{part.get(patient - 10000000, 'train')}" for patient, study, pic, _ in MIMIC_ROWS
    ]
    studies = sorted({(patient, study) for patient, study, _, _ in MIMIC_ROWS})[:-1]
    text(folder / name.format("metadata"), MIMIC_METADATA, *meta)
    text(folder / name.format("split"), "dicom_id,study_id,subject_id,split", *split)
    for labeller, edema in zip(labels, ("-1.0", "1.0"), strict=False):
        rows = [f"{patient},{study},1.0,,,{edema},,,,,,0.0,,,," for patient, study in studies]
        text(folder / name.format(labeller), "subject_id,study_id," + MIMIC_LABELS, *rows)
    images(folder, [f"{under}/p10/p{patient}/s{study}/{pic}.jpg" for patient, study, pic, _ in MIMIC_ROWS])
    with zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w") as archive:
        for patient, study in studies:
            archive.writestr(f"files/p10/p{patient}/s{study}.txt", MIMIC_REPORT.format(study))
    return folder


# ---- RSNA

RSNA_IDS = [f"{place:08x}-aaaa-4bbb-8ccc-{place * place:012x}" for place in range(20)]


def rsna(folder: Path) -> Path:
    """Kaggle's files: one row per box, DICOM images, and the three classes row by row."""
    rows, classes = [], []
    for place, name in enumerate(RSNA_IDS):
        sick = place % 3 == 0
        boxes = ["264.0,152.0,213.0,379.0,1", "562.0,152.0,462.0,872.0,1"] if sick else [",,,,0"]
        rows += [f"{name},{box}" for box in boxes]
        kind = "Lung Opacity" if sick else ("Normal", "No Lung Opacity / Not Normal")[place % 2]
        classes += [f"{name},{kind}"] * len(boxes)
    text(folder / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", *rows)
    text(folder / "stage_2_detailed_class_info.csv", "patientId,class", *classes)
    images(folder / "stage_2_train_images", [f"{name}.dcm" for name in RSNA_IDS])
    return folder


def lovt(folder: Path) -> Path:
    """The published split beside the others' files."""
    for name, chosen in (("train", RSNA_IDS[:12]), ("validation", RSNA_IDS[12:16]), ("test", RSNA_IDS[16:])):
        text(folder / f"{name}.csv", "ID,boxes,classes", *(f"{each},," for each in chosen))
    return folder


# ---- PadChest

PADCHEST_HEADER = ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,MethodLabel,Report,Labels,LabelsLocalizationsBySentence"
PADCHEST_LABELS = (
    "['normal']",
    "\"['pleural effusion', 'laminar atelectasis ', 'NSG tube', 'pleural effusion']\"",
    "\"['unchanged', 'cardiomegaly']\"",
    "['unchanged']",
    "\"['exclude', 'pneumonia']\"",
    "['']",
    "",
)


def padchest(folder: Path) -> Path:
    """The table, whose reports may have several lines, and 16-bit images in numbered folders."""
    rows, names = [], []
    for place in range(28):
        patient, projection = place // 2, ("PA", "L", "AP_horizontal", "COSTAL")[place % 4]
        names.append(f"{place % 3}/{place:08d}_abc.png")
        rows.append(
            f"{place},{names[-1].partition('/')[2]},{place % 3},20140915,study{place},patient{patient},1930.0,"
            f'{"MFO"[patient % 3]},{projection},{("Physician", "RNN_model")[place % 2]},"sin hallazg .\n",'
            f"{PADCHEST_LABELS[place % 7]},\"[['nodule', 'loc hilar ', 'loc right'], ['normal'], 1, ['loc left']]\""
        )
    text(folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", PADCHEST_HEADER, *rows)
    images(folder, names)
    return folder


# ---- VinDr-CXR

VINDR_LABELS = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,Edema,Emphysema,"
    "Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,Mediastinal shift,Nodule/Mass,Pleural effusion,"
    "Pleural thickening,Pneumothorax,Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,"
    "Tuberculosis,{},No finding"
)
VINDR_IDS = {
    part: [f"{place:032x}" for place in places] for part, places in (("train", range(24)), ("test", range(30, 36)))
}
VINDR_BOXES = {0: ("Cardiomegaly,2,3,20,30", "Nodule/Mass,1,2,9.5,8"), 1: ("Rib fracture,3,3,30,9",)}
"""Image number modulo 4 → class and corners of each box; the second of three readers sees none in every other image."""


def _vindr_rows(place: int, reader: int) -> tuple[list[str], list[str]]:
    """Boxes and names of the positive labels of a reader."""
    seen = () if reader == 1 and place % 2 else VINDR_BOXES.get(place % 4, ())
    names = [box.partition(",")[0] for box in seen] + ["Pneumonia"] * (place % 4 == 2 and reader == 0)
    return list(seen) or ["No finding,,,,"], names or ["No finding"]


def vindr(folder: Path) -> Path:
    """The download from PhysioNet: four tables, and DICOM files in train and test."""
    for part, other in (("train", "Other diseases"), ("test", "Other disease")):
        names, labels, boxes = VINDR_LABELS.format(other).split(","), [], []
        for place, image_id in enumerate(VINDR_IDS[part]):
            for reader in range(3 if part == "train" else 1):
                who = f",R{8 + (place + reader) % 4}" if part == "train" else ""
                drawn, positive = _vindr_rows(place, reader)
                labels.append(f"{image_id}{who}," + ",".join(str(int(name in positive)) for name in names))
                boxes += [f"{image_id}{who},{box}" for box in drawn]
        header = "image_id" + ",rad_id" * (part == "train")
        text(folder / f"annotations/image_labels_{part}.csv", ",".join([header, *names]), *labels)
        text(folder / f"annotations/annotations_{part}.csv", header + ",class_name,x_min,y_min,x_max,y_max", *boxes)
        images(folder / part, [f"{image_id}.dicom" for image_id in VINDR_IDS[part]])
    return folder


def vinbigdata(folder: Path) -> Path:
    """The download from Kaggle: one table; the readers' rows are in no order, and the test images have no labels."""
    rows = []
    for place, image_id in enumerate(VINDR_IDS["train"]):
        for reader in range(3):
            drawn = [box for box in _vindr_rows(place, reader)[0] if not box.startswith("Rib")] or ["No finding,,,,"]
            rows += [
                f"{image_id},{name},0,R{8 + reader},{box}" for name, _, box in (one.partition(",") for one in drawn)
            ]
    text(
        folder / "train.csv",
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
        *sorted(rows, key=lambda row: row[::-1]),
    )
    images(folder, [f"{part}/{image_id}.dicom" for part in VINDR_IDS for image_id in VINDR_IDS[part]])
    return folder


# ---- ChestX-Det

CHESTXDET_ENTRIES = [  # names of findings and boxes (left, top, right, bottom)
    ([], []),
    (["Effusion", "Diffuse Nodule"], [[100, 200, 400, 1000], [5, 6, 1022, 900]]),
    (["Nodule", "Nodule", "Pleural Thickening"], [[1, 2, 11, 22], [50, 60, 70, 80], [3, 3, 30, 30]]),
    (["Calcification"], [[10, 20, 30, 40]]),
]


def chestxdet(folder: Path) -> Path:
    """Both lists with polygons, the images under new numbers, and masks that were drawn from the polygons."""
    for part, first in (("train", 36200), ("test", 39066)):
        entries = [
            {
                "file_name": f"{first + place}.png",
                "syms": syms,
                "boxes": boxes,
                "polygons": [[[x, y], [right, y], [right, bottom]] for x, y, right, bottom in boxes],
            }
            for place, (syms, boxes) in enumerate(CHESTXDET_ENTRIES * 5)
        ]
        text(folder / f"ChestX_Det_{part}.json", json.dumps(entries))
        images(folder / f"{part}_data" / part, [entry["file_name"] for entry in entries])
        image(folder / f"{part}_data" / part / "mask" / f"{first}_mask.png")
    return folder


# ---- Open-i

OPENI_TERMS = (
    ("normal",),
    ("Pleural Effusion/left/small", "Opacity/lung/base/left", "Cicatrix/lung/base"),
    ("Cardiomegaly", "Technical Quality of Image Unsatisfactory "),
    ("No Indexing",),
    ("Opacity/ribs", "Thickening/pleura", "Subcutaneous Emphysema"),
)
OPENI_REPORTS = (
    '<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="FINDINGS">Heart &lt; normal.\n XXXX'
    '</AbstractText><AbstractText Label="IMPRESSION"/>',
    '<AbstractText Label="INDICATION">Chest pain</AbstractText><AbstractText Label="IMPRESSION">a, b</AbstractText>',
    '<AbstractText Label="FINDINGS"/>',
)
OPENI_VIEWS = ("PA", "LL")


def openi_image(report: int, place: int) -> str:
    """Name of an image in the tables."""
    return f"{report}_IM-{report + 1:04d}-{3 + place}001"


def openi(folder: Path) -> Path:
    """The reports with two images each, the last one without, and the table of DICOM headers."""
    views = []
    for report in range(1, 17):
        names = [] if report == 16 else [openi_image(report, place) for place in range(2)]
        terms = "".join(f"<major>{term}</major>" for term in OPENI_TERMS[report % 5])
        figures = "".join(
            f'<parentImage id="CXR{report}_{name}"><figureId>F1</figureId></parentImage>' for name in names
        )
        text(
            folder / "ecgen-radiology" / f"{report}.xml",
            '<?xml version="1.0" encoding="utf-8"?>',
            f'<eCitation><uId id="CXR{report}"/><Abstract>{OPENI_REPORTS[report % 3]}</Abstract><MeSH>{terms}<automatic>opacity</automatic></MeSH>{figures}</eCitation>',
        )
        images(folder / "NLMCXR_png", [f"CXR{report}_{name}.png" for name in names])
        views += [f"CXR{name},{view}" for name, view in zip(names, OPENI_VIEWS, strict=False)]
    text(folder / "nlmcxr_dicom_metadata.csv.gz", "imageid,View Position", *views)
    return folder


def openi_kaggle(folder: Path) -> Path:
    """The copy on Kaggle: two tables and images under their DICOM names."""
    header = "uid,MeSH,Problems,image,indication,comparison,findings,impression"
    texts = (",None.,Heart < normal. XXXX,", 'Chest pain,,,"a, b"', ",,,")
    rows = [f'{report},"{";".join(OPENI_TERMS[report % 5])}",,,{texts[report % 3]}' for report in range(1, 16)]
    names = {f"{openi_image(report, place)}.dcm.png": report for report in range(1, 16) for place in range(2)}
    views = ("Frontal", "Lateral")
    text(folder / "indiana_reports.csv", header, *rows)
    lines = [f"{report},{name},{views[place % 2]}" for place, (name, report) in enumerate(names.items())]
    text(folder / "indiana_projections.csv", "uid,filename,projection", *lines)
    images(folder / "images/images_normalized", names)
    return folder


# ---- SIIM-ACR


def siim(folder: Path) -> Path:
    """The archive: DICOM files in a folder of their study and series, a mask in each row of the table."""
    names = [f"1.2.276.0.7230010.3.1.4.8323329.{place}.1517875{place:03d}.43" for place in range(20)]
    masks = [(" -1",), ("557374 2 1020 8",), ("-1",), ("4 5", "10 3 1021 2")]
    rows = [f"{name},{mask}" for place, name in enumerate(names) for mask in masks[place % 4]]
    text(folder / "train-rle.csv", "ImageId, EncodedPixels", *rows)
    images(
        folder / "dicom-images-train", [f"1.2.3.{place}/1.2.4.{place}/{name}.dcm" for place, name in enumerate(names)]
    )
    return folder


# ---- JSRT


def jsrt(folder: Path) -> Path:
    """Converted images, the two clinical tables, one with joined lines, and masks in two folds."""
    names = [f"JPC{kind}N{place:03d}" for kind in "LN" for place in range(1, 11)]
    images(folder / "All247images", [f"{name}.png" for name in names])
    lines = [
        f"{name}.IMG\t{1 + place % 5}\t{10 + place}\t{40 + place if place else '?'}\t{('Male', 'Female')[place % 2]}\t"
        f"{1000 + 10 * place}\t{700 + place}\tmalignant\tl.upper lobe\tlung cancer"
        for place, name in enumerate(names[:10])
    ]
    text(folder / "Clinical_Information" / "CLNDAT_EN.txt", lines[0] + lines[1], *lines[2:])
    text(
        folder / "Clinical_Information" / "CNNDAT_EN.TXT", *(f"{name}.IMG\t54\tmale\tnon-nodule" for name in names[10:])
    )
    for place, name in enumerate(names):
        for structure in ("left lung", "heart"):
            mask(folder / f"scratch/fold{1 + place % 2}/masks/{structure}/{name}.png", place)
    return folder


# ---- CANDID-PTX


def candid_ptx(folder: Path) -> Path:
    """Three tables, with several masks for an image, and DICOM files without an ending."""
    names = [f"1.2.276.0.7230010.3.1.4.0.{place}.151787{place:04d}.{place % 7}" for place in range(24)]
    cells = [("-1",), ("557374 2 1020 8",), ("-1",), ("4 5", "10 3 1021 2")]
    rows = [
        f'P{place // 2:04d}_{place}.dcm,{name},1.2.{place // 2},{cell},"Chest.\n No, pneumothorax."'
        for place, name in enumerate(names)
        for cell in cells[place % 4]
    ]
    text(folder / "Pneumothorax_reports.csv", "filename,SOPInstanceUID,StudyInstanceUID,EncodedPixels,Report", *rows)
    for table, step in (("Rib_fracture_mask_rle.csv", 6), ("chest_tube.csv", 5)):
        lines = [f"{name},R_{place},{100 + place} 3 1021 4" for place, name in enumerate(names) if place % step == 0]
        text(folder / table, "anon_SOPUID,annotation_ref,mask_rle", *lines, "1.2.3.4,R_99,7 7")
    for place, name in enumerate(names):
        image(folder / "dataset" / "a.dcm", place).rename(folder / "dataset" / name)
    return folder


# ---- Shenzhen and Montgomery

SHENZHEN_READINGS = (
    "male 45yrs\nnormal",
    "femal 32yrs\nnormal",
    "male 16month\nnormal",
    "Female, 28yrs \t\nbilateral  secondary PTB\n1. right upper field",
)
MONTGOMERY_READINGS = (
    "Patient's Sex: F \nPatient's Age: 027Y\nnormal",
    "Patient's Sex: O \nPatient's Age: 005Y\nnormal",
    "Patient's Sex: M \nPatient's Age: 049Y\ninfiltrates in the left upper lobe",
    "Patient's Sex: M \nPatient's Age: 049Y\nNO REPORT (same pt as MCUCXR_0003_1)",
)


def nlm_tb(folder: Path) -> Path:
    """Both downloads side by side, with masks that have the names of images."""
    for home, name, readings in (
        ("ChinaSet_AllFiles", "CHNCXR", SHENZHEN_READINGS),
        ("MontgomerySet", "MCUCXR", MONTGOMERY_READINGS),
    ):
        for place in range(12):
            stem = f"{name}_{place + 1:04d}_{int(place % 4 > 1 if name == 'MCUCXR' else place % 4 > 2)}"
            image(folder / home / "CXR_png" / f"{stem}.png", place)
            text(folder / home / "ClinicalReadings" / f"{stem}.txt", readings[place % 4])
            for side in ("left", "right") if name == "MCUCXR" else ():
                mask(folder / home / f"ManualMask/{side}Mask" / f"{stem}.png", place)
        text(folder / home / "CXR_png" / "Thumbs.db", "")
    mask(folder / "ChinaSet_AllFiles/mask/CHNCXR_0001_0_mask.png")
    return folder


# ---- MedMNIST


def medmnist(folder: Path, name: str = "pneumoniamnist.npz", side: int = 28, findings: int = 1) -> Path:
    """An npz with images and labels of three parts."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    counts = {"train": 7, "val": 3, "test": 4}
    images = {f"{part}_images": draw.integers(0, 256, (count, side, side), np.uint8) for part, count in counts.items()}
    labels = {f"{part}_labels": draw.integers(0, 2, (count, findings), np.uint8) for part, count in counts.items()}
    np.savez_compressed(folder / name, **images, **labels)
    return folder


# ---- your own


def own_csv(folder: Path) -> Path:
    """A CSV of a hospital: findings as columns, several images per patient."""
    rows = [
        f"images/{patient}_{place}.png,P{patient},{'PA' if place else 'lateral'},女,{30 + patient},{patient % 2},-1,"
        for patient in range(12)
        for place in range(2)
    ]
    text(
        folder / "list.csv",
        "image_path,patient_id,view,sex,age,Pleural Effusion,肺不张,Mass",
        *rows,
        encoding="gb18030",
    )
    images(folder, [row.partition(",")[0] for row in rows])
    return folder


def class_folders(folder: Path) -> Path:
    names = [
        f"{part}/{kind}/{kind.lower()}-{place}.jpeg"
        for part in ("train", "val", "test")
        for kind in ("NORMAL", "PNEUMONIA")
        for place in range(3)
    ]
    images(folder, names)
    return folder


def phantom(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


TREES: dict[str, Callable[[Path], Path]] = {
    "brax": brax,
    "candid_ptx": candid_ptx,
    "chestxdet": chestxdet,
    "chexpert": chexpert,
    "chexpert_plus": chexpert_plus,
    "covidx": covidx,
    "folder": own_csv,
    "jsrt": jsrt,
    "medmnist": medmnist,
    "mimic": mimic,
    "ms_cxr": ms_cxr,
    "object_cxr": object_cxr,
    "nih": nih,
    "nlm_tb": nlm_tb,
    "openi": openi,
    "padchest": padchest,
    "phantom": phantom,
    "rsna": rsna,
    "siim": siim,
    "vindr": vindr,
    "vindr_pcxr": vindr_pcxr,
}
"""A dataset that is not listed here can bring its own tree: a function `example(folder) -> root` in its file."""


def builder(name: str) -> Callable[[Path], Path] | None:
    """What writes a small synthetic copy of a dataset in its real layout, if anything does."""
    return TREES.get(name) or getattr(datasets.load_dataset(name), "example", None)


def read_table(folder: Path, *lines: str, **options: object) -> Index:
    """The index of a folder of one's own files with a table of these lines."""
    text(folder / "a.csv", *lines)
    return datasets.index("folder", folder, **options)
