"""Marks for tests that not every driver, or not every user, can pass."""

from __future__ import annotations

import pytest

needs = pytest.mark.needs  # @needs(Ability.X): skipped if the driver names X as lacking
needs_root = pytest.mark.needs_root
