"""Schemas of all responses; their descriptions appear on the OpenAPI page."""

from typing import Any, Literal

from pydantic import BaseModel, Field

INTENDED_USE = "Research use only; not a medical device."


class ErrorResponse(BaseModel):
    """An error."""

    error: str = Field(description="The cause, as one sentence.")


class Health(BaseModel):
    """State of the server."""

    state: Literal["starting", "ready", "stopping"]


class AurocInfo(BaseModel):
    """AUROC on the validation images, with a 95 % confidence interval clustered by patient."""

    value: float
    low: float | None
    high: float | None
    n: int = Field(description="Number of validation images with a known label for the finding.")
    positives: int


class FindingInfo(BaseModel):
    """A finding that a model predicts."""

    name: str
    thresholds: dict[str, float | None] = Field(
        description="Rule → threshold chosen by it on validation images; null if none could be chosen."
    )
    auroc: AurocInfo | None


class InputInfo(BaseModel):
    """Input size of the model; images are made square and resized to it."""

    side: int
    fit: Literal["pad", "crop", "squash"]


class DatasetInfo(BaseModel):
    """A dataset that a model was trained on."""

    name: str
    source: str
    licence: str


class ModelInfo(BaseModel):
    """A model on this server."""

    id: str = Field(description="Value of the parameter ?model= for this model.")
    kind: Literal["classifier", "detector"]
    architecture: str
    findings: list[FindingInfo]
    input: InputInfo
    data: list[DatasetInfo]
    warning: str = Field(description="A warning that applies to all predictions of the model; it is usually empty.")
    ood_check: bool = Field(
        description="Whether the model has an out-of-distribution (OOD) check, a warning for images unlike the "
        "training images."
    )
    ood_weakness: str = Field(description="Why the OOD check is not reliable; empty if it is reliable.")


class ModelList(BaseModel):
    """All models; the first is the default."""

    models: list[ModelInfo]
    intended_use: str
    token_required: bool


class Reliability(BaseModel):
    """Observed frequency of positives among validation images with similar probabilities, with a 95 % confidence
    interval."""

    images: int
    positives: int
    frequency: float
    low: float
    high: float


class FindingPrediction(BaseModel):
    """The prediction for one finding in one image."""

    name: str
    probability: float
    above_threshold: dict[str, bool | None] = Field(
        description="Rule → whether the probability reaches its threshold; null if there is no threshold."
    )
    reliability: Reliability | None


class DetectedBox(BaseModel):
    """A detected box, in pixel coordinates of the file."""

    finding: str
    score: float
    x: float
    y: float
    width: float
    height: float


class FileResult(BaseModel):
    """The predictions for one file; for an unreadable file only `file` and `error`."""

    file: str
    width: int | None = None
    height: int | None = None
    findings: list[FindingPrediction] | None = None
    boxes: list[DetectedBox] | None = None
    model_warning: str | None = Field(None, description="A warning that applies to all predictions of the model.")
    image_warnings: list[str] | None = Field(
        None, description="Warnings about differences between the image and the training images."
    )
    notes: list[str] | None = Field(None, description="How the file was decoded.")
    tags: dict[str, str] | None = Field(None, description="Selected DICOM tags; none of them identifies a patient.")
    error: str | None = None


class PredictionResponse(BaseModel):
    """One result per file, in the order of the files."""

    model: str
    intended_use: str
    milliseconds: float
    results: list[FileResult]


class UnreadableResponse(ErrorResponse):
    """The error if no file could be read."""

    results: list[FileResult] | None = None


class SaliencyBox(BaseModel):
    """A box around high saliency, in pixel coordinates of the file."""

    x: float
    y: float
    width: float
    height: float
    mean_saliency: float


class SaliencyResponse(BaseModel):
    """The saliency map of a finding (Grad-CAM)."""

    finding: str
    width: int
    height: int
    saliency_map: str = Field(description="8-bit greyscale PNG of this size in base64; 255 is the highest saliency.")
    boxes: list[SaliencyBox] = Field(description="Boxes around pixels with at least half of the highest saliency.")
    grid: list[int] = Field(
        description="Rows and columns of the feature map, which are the resolution of the saliency map."
    )
    warning: str = Field(description="A warning if the map is too coarse for localisation; otherwise empty.")


def responses(*statuses: int, **good: Any) -> dict[int | str, dict[str, Any]]:
    """The response statuses of a route and their descriptions."""
    words = {
        400: "The request is malformed.", 401: "The token is missing or wrong.",
        403: "The request comes from another site, or uses a host name that does not belong to this machine.",
        404: "The model or finding is unknown.",
        413: "The request or a file is too large, or there are too many files.",
        415: "The request is not multipart/form-data.", 422: "No file is a readable image, or a parameter is invalid.",
        500: "An internal error occurred.", 504: "The request took too long.",
        503: "The server is starting, stopping or overloaded; see the header Retry-After.",
    }  # fmt: skip
    made: dict[int | str, dict[str, Any]] = {
        status: {"description": words[status], "model": UnreadableResponse if status == 422 else ErrorResponse}
        for status in statuses
    }
    return {200: {"description": "Success.", **good}, **made}
