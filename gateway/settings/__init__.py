"""The options of the program: one frozen, typed tree, read once at start. Imports no other room."""

from gateway.settings.addresses import SourceAddress, is_address, parse_address
from gateway.settings.load import for_checkpoint, for_demo, for_version, load
from gateway.settings.problems import Problem, SettingsError
from gateway.settings.tree import (
    METRIC_NAME,
    AdminSettings,
    AuthSettings,
    CacheSettings,
    EngineSettings,
    KeySettings,
    MetricSettings,
    ModelSettings,
    PriceSettings,
    ServerSettings,
    Settings,
    ShadowSettings,
    SpeculativeSettings,
    StateSettings,
    VersionSettings,
    find_name_fault,
    normalise_split,
)

__all__ = [
    "METRIC_NAME",
    "AdminSettings",
    "AuthSettings",
    "CacheSettings",
    "EngineSettings",
    "KeySettings",
    "MetricSettings",
    "ModelSettings",
    "PriceSettings",
    "Problem",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "ShadowSettings",
    "SourceAddress",
    "SpeculativeSettings",
    "StateSettings",
    "VersionSettings",
    "find_name_fault",
    "for_checkpoint",
    "for_demo",
    "for_version",
    "is_address",
    "load",
    "normalise_split",
    "parse_address",
]
