"""The timelines of pods, for those who ask: from memory and from the journal."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from noded.errors import InvalidArgument, NotFound
from noded.model.timeline import Call, Subject, Timeline, group, matches, merge
from noded.tracing.journal import FILES, Journal
from noded.tracing.recorder import Recorder


class Timelines:
    """Reads what the recorder has written."""

    def __init__(self, journal: Journal, recorder: Recorder) -> None:
        self._journal = journal
        self._recorder = recorder

    async def find(self, wanted: str, last: int) -> list[Timeline]:
        """The newest timelines of a pod, oldest of them first.

        Args:
            wanted: NAME, NAMESPACE/NAME, uid or start of an id, of a removed pod too; "" = all pods.
            last: how many at most.

        Raises: NotFound; InvalidArgument when several pods are meant.
        """
        live = self._recorder.unwritten()  # before the journal: what is written meanwhile is in both
        if not wanted:
            return await trio.to_thread.run_sync(self._newest, live, last)
        calls = await trio.to_thread.run_sync(self._calls, wanted)
        found = group(merge([*live, *calls]))
        found = [one for one in found if matches(one.subject, wanted)]
        if not found:
            raise NotFound(
                f"no timeline of a pod {wanted}: give its name, NAMESPACE/NAME or id; old ones are dropped"
            )
        pods = sorted({one.subject.pod for one in found})
        if len(pods) > 1:
            several = " or ".join(pods)
            raise InvalidArgument(f"{wanted} may be {several}: give NAMESPACE/NAME or more of the id")
        return found[-last:]

    def _newest(self, live: Sequence[Call], last: int) -> list[Timeline]:
        """Without reading more of the journal than it takes: its thread shares the interpreter."""
        found: list[Timeline] = []
        for newest in range(1, FILES + 1):
            found = group(merge([*live, *self._journal.read(newest=newest)]))
            if len(found) > last:  # the oldest may have more in the file before
                break
        return found[-last:]

    def _calls(self, wanted: str) -> Sequence[Call]:
        known = self._journal.read([wanted.rpartition("/")[2]])
        subjects = [call.subject for call in known if call.subject and matches(call.subject, wanted)]
        # Calls that name the pod only have no id of a sandbox.
        return self._journal.read(sorted({_handle(subject) for subject in subjects})) if subjects else ()


def _handle(subject: Subject) -> str:
    return subject.uid or subject.name
