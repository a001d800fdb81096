"""Errors: what a failed request means, as one line without the server's text, which may contain credentials."""

import re
from collections.abc import Iterator

EXPIRED = frozenset(
    ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired", "UnauthorizedSSOTokenError",
     "TokenRetrievalError", "SSOTokenLoadError", "RefreshError")
)  # fmt: skip
INVALID = frozenset(
    ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity", "AuthorizationHeaderMalformed",
     "NotSignedUp", "RequestTimeTooSkewed", "401")
)  # fmt: skip
MISSING = frozenset(("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
                     "DefaultCredentialsError", "LocalTokenNotFoundError"))  # fmt: skip
DENIED = frozenset(("AccessDenied", "AllAccessDisabled", "AccountProblem", "GatedRepoError", "403"))
NO_BUCKET = frozenset(("NoSuchBucket", "InvalidBucketName"))
NO_REPOSITORY = frozenset(("RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError"))
NO_OBJECT = frozenset(("NoSuchKey", "FileNotFoundError", "EntryNotFoundError", "404"))
SLOW = frozenset(
    ("TimeoutError", "FSTimeoutError", "ReadTimeoutError", "ConnectTimeoutError", "RequestTimeout", "TimeoutException")
)
CUT = frozenset(
    ("ConnectionError", "IncompleteRead", "IncompleteReadError", "HTTPClientError", "aiohttp", "ResponseParserError",
     "EndpointConnectionError", "ConnectionClosedError", "ResponseStreamingError", "ProtocolError", "TransportError",
     "gaierror")
)  # fmt: skip
BUSY = frozenset(
    ("SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted", "TooManyRequests", "BadDigest",
     "XAmzContentSHA256Mismatch", "FlexibleChecksumError", "IncompleteBody", "429", "500", "502", "503", "504")
)  # fmt: skip
PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,60}")


def explained(error: BaseException, address: str) -> OSError:
    """The error as one line; the type says what kind it is: FileNotFoundError, PermissionError, TimeoutError or
    ConnectionError. The last two may pass when the request is repeated."""
    found = set(error_marks(error))
    bucket = bucket_of(address)
    if found & NO_REPOSITORY:  # the reply is the same where a private one exists
        return FileNotFoundError(f"{bucket} does not exist, or the credentials in use give no access to it.")
    if found & EXPIRED:
        return PermissionError(
            f"The credentials for {address} have expired. Renew them and run the same command again."
        )
    if found & INVALID:
        return PermissionError(f"The credentials for {address} were rejected as invalid. Check them (docs/remote.md).")
    if found & MISSING:
        return PermissionError(
            f"No credentials were found for {address}. Pass them through environment variables or configuration files "
            f"(docs/remote.md)."
        )
    if found & NO_BUCKET:
        return FileNotFoundError(f"{bucket} does not exist. Check the address {address}.")
    if found & DENIED:
        return PermissionError(f"The credentials in use give no access to {address}.")
    if found & NO_OBJECT:
        return FileNotFoundError(f"{address} does not exist.")
    if found & SLOW:
        return TimeoutError(
            f"{address}: the server sent or accepted too little data in the time allowed. Try again, or set "
            f"RIBCAGE_REMOTE_TIMEOUT to more seconds."
        )
    if found & (CUT | BUSY):
        return ConnectionError(
            f"{address}: the connection failed{_named(error)}. Try again when the server is available."
        )
    return OSError(f"{address} cannot be used{_named(error)}.")


def bucket_of(address: str) -> str:
    """The address of the bucket, or of the repository of hf://."""
    scheme, _, rest = address.partition("://")
    steps = rest.split("/")
    kept = 1 if scheme != "hf" else 3 if steps[0] in ("datasets", "models", "spaces", "buckets", "kernels") else 2
    return f"{scheme}://{'/'.join(steps[:kept])}"


def is_passing(error: OSError) -> bool:
    """Whether the same request may succeed later."""
    return isinstance(error, TimeoutError | ConnectionError)


def is_unexplained(error: BaseException) -> bool:
    """Whether only the status of a reply without content is known, as of a HEAD request."""
    found = set(error_marks(error))
    return bool(found & {"400", "403"}) and not found & (EXPIRED | INVALID | {"AccessDenied"})


def error_marks(error: BaseException) -> Iterator[str]:
    """Names of the types of an error and of its causes, and the codes of the server."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        for kind in type(one).__mro__:
            if kind not in (Exception, BaseException, object, OSError):
                yield "aiohttp" if kind.__module__.startswith("aiohttp") else kind.__name__
        if code := _code(one):
            yield code
        if isinstance(one, OSError) and str(one).startswith("Forbidden:"):  # gcsfs
            yield "403"
        one = one.__cause__ or one.__context__


def _code(error: BaseException) -> str:
    """The server's code in an error of botocore, or the status of an HTTP reply."""
    reply = getattr(error, "response", None)
    if isinstance(reply, dict):
        code = str(reply.get("Error", {}).get("Code", ""))
    else:
        code = str(getattr(reply, "status_code", None) or getattr(error, "code", None) or "")
    return code if PLAIN.fullmatch(code) else ""


def _named(error: BaseException) -> str:
    """The type of the first error and the server's code, in parentheses."""
    names = [type(error).__name__, *filter(None, [_code(error) or _code(error.__cause__ or error)])]
    return f" ({', '.join(dict.fromkeys(names))})"
