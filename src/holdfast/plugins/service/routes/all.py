"""Every endpoint of the service. A module of routes is a tuple ``ENDPOINTS`` and a line here."""

from __future__ import annotations

from holdfast.plugins.service.routes import (
    chat,
    explain,
    feedback,
    health,
    inference,
    pages,
    predict,
)
from holdfast.plugins.service.web.endpoint import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *predict.ENDPOINTS,
    *explain.ENDPOINTS,
    *feedback.ENDPOINTS,
    *health.ENDPOINTS,
    *inference.ENDPOINTS,
    *chat.ENDPOINTS,
    *pages.ENDPOINTS,
)
