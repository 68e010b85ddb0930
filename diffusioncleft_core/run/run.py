"""A run under way: what every stage is given."""

from __future__ import annotations

from collections.abc import Callable

from ..conditions.vocabulary import Condition
from ..report.folders import RunFolders
from .settings import RunSettings
from .stages import Results, Stages, say_on_stderr

Warn = Callable[[str], None]
WARNINGS = "warnings"
"""Among a stage's results: what it warned of and the report says, see `Run.noted`."""


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

    @property
    def conditions(self) -> list[Condition]:
        """The conditions of this run, in the vocabulary's order."""
        return [self.settings.vocabulary.condition(name) for name in self.settings.conditions]

    @property
    def warnings(self) -> list[str]:
        """What the stages warned of, in this call or an earlier one, and the report says too."""
        results = [done for stages in self.facts.values() for done in stages.values()]
        return list(dict.fromkeys(message for done in results for message in done.get(WARNINGS, ())))

    def noted(self, said: list[str]) -> Warn:
        """Warns, and keeps in `said`, for the stage's results, what the report says too.

        Such a message names no photograph and no folder.
        """

        def note(message: str) -> None:
            said.append(message)
            self.warn(message)

        return note
