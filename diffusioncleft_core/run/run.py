"""A run under way: what every stage is given."""

from __future__ import annotations

from collections.abc import Callable

from ..conditions.vocabulary import Condition
from ..report.folders import RunFolders
from .settings import RunSettings
from .stages import Results, Stages, say_on_stderr

Warn = Callable[[str], None]


class Run:
    """What is asked for, where it lies, its stages, and what they said so far.

    Nothing is written before the first stage runs.

    Args:
        settings: what is asked for.
        dry: whether the stages are only examined.
        warn: told every warning, also those that may name a file of the user's.
        say: prints one line.

    Attributes:
        facts: results by condition and stage.
        warnings: those that the report says too, see `remember`.
    """

    def __init__(
        self,
        settings: RunSettings,
        *,
        dry: bool = False,
        warn: Warn = lambda message: None,
        say: Callable[[str], None] = say_on_stderr,
    ) -> None:
        self.settings, self.warn = settings, warn
        self.folders = RunFolders(settings.out)
        self.stages = Stages(self.folders.root, self.folders.private, redo=settings.redo, dry=dry, say=say)
        self.facts: dict[str, dict[str, Results]] = {name: {} for name in settings.conditions}
        self.warnings: list[str] = []

    @property
    def conditions(self) -> list[Condition]:
        """The conditions of this run, in the vocabulary's order."""
        return [self.settings.vocabulary.condition(name) for name in self.settings.conditions]

    def remember(self, message: str) -> None:
        """Warn, and have the report say it too: the message names no photograph and no folder."""
        self.warnings.append(message)
        self.warn(message)
