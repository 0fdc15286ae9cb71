"""Every endpoint of the service, one file per subject; each file has a tuple ``ENDPOINTS``."""

from __future__ import annotations

from holdfast.plugins.service.routes import chat, feedback, health, inference, predict
from holdfast.plugins.service.web.endpoint import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *predict.ENDPOINTS,
    *feedback.ENDPOINTS,
    *health.ENDPOINTS,
    *inference.ENDPOINTS,
    *chat.ENDPOINTS,
    *health.PAGES,
)
