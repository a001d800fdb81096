"""Shapes: what is answered, as the OpenAPI page describes it."""

from typing import Any, Literal

from pydantic import BaseModel, Field

USE = "Research use only; not a medical device."


class Wrong(BaseModel):
    """What went wrong."""

    error: str = Field(description="One clear sentence.")


class Health(BaseModel):
    """Whether the server answers."""

    state: Literal["starting", "ready", "stopping"]


class Auroc(BaseModel):
    """On validation images, with a 95 % interval over patients."""

    value: float
    low: float | None
    high: float | None
    n: int = Field(description="Validation images for which the finding is known.")
    positives: int


class Finding(BaseModel):
    """What a model can say."""

    name: str
    thresholds: dict[str, float | None] = Field(
        description="How chosen → probability from which on the finding is called present; null where none was chosen."
    )
    auroc: Auroc | None


class Input(BaseModel):
    """What an image is brought to."""

    side: int
    fit: Literal["pad", "crop", "squash"]


class Source(BaseModel):
    """What a model learnt from."""

    name: str
    source: str
    licence: str


class OneModel(BaseModel):
    """A model that can be asked."""

    id: str = Field(description="What `?model=` takes.")
    kind: Literal["classifier", "detector"]
    architecture: str
    findings: list[Finding]
    input: Input
    data: list[Source]
    warning: str = Field(description="What has to be said with its predictions; empty for most models.")
    ood_check: bool = Field(description="Whether it notices images unlike its training images.")
    ood_weakness: str = Field(description="Why that check should not be relied on; empty where it may be.")


class Models(BaseModel):
    """All models, the first being asked where none is named."""

    models: list[OneModel]
    use: str
    token: bool = Field(description="Whether a token is needed.")


class Reliability(BaseModel):
    """Validation images of similar probability, and how many of them have the finding; 95 % interval."""

    images: int
    positives: int
    share: float
    low: float
    high: float


class Said(BaseModel):
    """What a model says of one finding in one image."""

    name: str
    probability: float
    crossed: dict[str, bool | None]
    reliability: Reliability | None


class Placed(BaseModel):
    """A box in pixels of the file."""

    finding: str
    score: float
    x: float
    y: float
    width: float
    height: float


class Result(BaseModel):
    """What is said of one file; of one that cannot be read, `file` and `error` alone."""

    file: str
    width: int | None = None
    height: int | None = None
    findings: list[Said] | None = None
    boxes: list[Placed] | None = None
    warning: str | None = Field(None, description="What has to be said with every prediction of this model.")
    remarks: list[str] | None = Field(None, description="What is unusual about the image, in sentences.")
    notes: list[str] | None = Field(None, description="What was done to read the file.")
    tags: dict[str, str] | None = Field(None, description="Of a DICOM; never whose it is.")
    error: str | None = None


class Answers(BaseModel):
    """One result for each file, in their order."""

    model: str
    use: str
    milliseconds: float
    results: list[Result]


class NoAnswers(Wrong):
    """No file could be read."""

    results: list[Result] | None = None


class Hot(BaseModel):
    """A box around heat, in pixels of the file, and the mean heat in it."""

    x: float
    y: float
    width: float
    height: float
    heat: float


class Heat(BaseModel):
    """Where a model looks for a finding."""

    finding: str
    width: int
    height: int
    heat: str = Field(description="A gray 8-bit PNG of this size, base64: 255 is where it looks most.")
    boxes: list[Hot]
    cells: list[int] = Field(description="How many cells the map has, down and across: it is not finer than that.")
    remark: str = Field(description="That the map is too coarse to point at anything, if it is; else empty.")


def responses(*statuses: int, **good: Any) -> dict[int | str, dict[str, Any]]:
    """The statuses of a route, each with what it says."""
    words = {
        400: "The request is not understood.", 401: "The token is missing or wrong.",
        403: "It comes from another site, or asks by a name that is not this machine's.",
        404: "There is no such model or finding.", 413: "Too large.", 415: "No form with files.",
        422: "No file is an image that can be read.", 500: "A fault in Ribcage.",
        503: "Starting, stopping, or too much at once: see Retry-After.", 504: "It took too long.",
    }  # fmt: skip
    made: dict[int | str, dict[str, Any]] = {
        status: {"description": words[status], "model": NoAnswers if status == 422 else Wrong} for status in statuses
    }
    return {200: good, **made}
