"""Schemas of all responses, as the OpenAPI page describes them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

INTENDED_USE = "Research use only; not a medical device."


class ErrorResponse(BaseModel):
    """What went wrong."""

    error: str = Field(description="One sentence.")


class Health(BaseModel):
    """Whether the server is ready."""

    state: Literal["starting", "ready", "stopping"]


class AurocInfo(BaseModel):
    """AUROC on the validation images, with a 95 % interval over patients."""

    value: float
    low: float | None
    high: float | None
    n: int = Field(description="Validation images with a known label of the finding.")
    positives: int


class FindingInfo(BaseModel):
    """A finding that a model predicts."""

    name: str
    thresholds: dict[str, float | None] = Field(
        description="Rule → threshold it chose on validation; null where it could choose none."
    )
    auroc: AurocInfo | None


class InputInfo(BaseModel):
    """The square that images are resized to."""

    side: int
    fit: Literal["pad", "crop", "squash"]


class DatasetInfo(BaseModel):
    """A dataset that a model was trained on."""

    name: str
    source: str
    licence: str


class ModelInfo(BaseModel):
    """A model of this server."""

    id: str = Field(description="Value of ?model= for this model.")
    kind: Literal["classifier", "detector"]
    architecture: str
    findings: list[FindingInfo]
    input: InputInfo
    data: list[DatasetInfo]
    warning: str = Field(description="A warning that applies to all predictions of the model; usually empty.")
    ood_check: bool = Field(description="Whether images unlike the training images are detected.")
    ood_weakness: str = Field(description="Why the OOD check is not reliable; empty where it is.")


class ModelList(BaseModel):
    """All models; the first is the default."""

    models: list[ModelInfo]
    intended_use: str
    token_required: bool


class Reliability(BaseModel):
    """How many of the validation images with similar probabilities are positive, with a 95 % interval."""

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
        description="Rule → whether its threshold is reached; null where it could choose none."
    )
    reliability: Reliability | None


class DetectedBox(BaseModel):
    """A box in pixels of the file."""

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
    image_warnings: list[str] | None = Field(None, description="What is unusual about the image, in sentences.")
    notes: list[str] | None = Field(None, description="How the file was decoded.")
    tags: dict[str, str] | None = Field(None, description="Some DICOM tags, none that identifies a patient.")
    error: str | None = None


class PredictionResponse(BaseModel):
    """One result per file, in the order of the files."""

    model: str
    intended_use: str
    milliseconds: float
    results: list[FileResult]


class UnreadableResponse(ErrorResponse):
    """No file could be read."""

    results: list[FileResult] | None = None


class SaliencyBox(BaseModel):
    """A box around high saliency, in pixels of the file."""

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
    saliency_map: str = Field(description="Gray 8-bit PNG of this size in base64; 255 is the highest saliency.")
    boxes: list[SaliencyBox] = Field(description="Boxes around pixels with at least half the highest saliency.")
    grid: list[int] = Field(description="Rows and columns of the feature map: the resolution of the map.")
    warning: str = Field(description="A warning where the map is too coarse to localise anything; else empty.")


def responses(*statuses: int, **good: Any) -> dict[int | str, dict[str, Any]]:
    """The statuses of a route and their descriptions."""
    words = {
        400: "Malformed request.", 401: "The token is missing or wrong.",
        403: "The request comes from another site, or uses a host name that is not this machine's.",
        404: "Unknown model or finding.", 413: "Request or file too large, or too many files.",
        415: "Not a multipart/form-data request.", 422: "No file is a readable image, or a parameter is invalid.",
        500: "Internal error.", 503: "Starting, stopping or overloaded: see Retry-After.", 504: "Timeout.",
    }  # fmt: skip
    made: dict[int | str, dict[str, Any]] = {
        status: {"description": words[status], "model": UnreadableResponse if status == 422 else ErrorResponse}
        for status in statuses
    }
    return {200: good, **made}
