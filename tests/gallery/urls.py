"""The URLs of a project that does not include ours."""

from __future__ import annotations

urlpatterns: list[object] = []
