"""Samplers: how a token moves from one level to the next lower one. One file per sampler; each states the law it draws from."""

from .acs import ACS, PublishedACS
from .ancestral import Ancestral
from .base import Sampler
from .filters import temperature

__all__ = ["ACS", "Ancestral", "PublishedACS", "Sampler", "temperature"]
