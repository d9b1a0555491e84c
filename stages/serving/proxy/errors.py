"""Errors in the shape that OpenAI's clients know.

    HTTP 429   {"error": {"message": "...", "type": "rate_limit_error", "param": null, "code": "queue_full"}}

Messages are ours: nothing that an upstream, a file's path or an exception says gets into them.
"""

from __future__ import annotations

from typing import Any

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "upstream_error",
    503: "upstream_error",
    504: "upstream_error",
}
RETRY_AFTER_S = 1
CLIENT_GONE = 499  # in counts only; nobody reads it


class ApiError(Exception):
    """An answer other than 200. param: the place in the request. retry_after_s: for 429 and 503."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after_s = retry_after_s or (RETRY_AFTER_S if status in (429, 503) else 0)

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s else {}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """400: the request itself has to change."""
    return ApiError(400, code, message, param)
