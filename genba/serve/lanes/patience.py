"""How long an answer is worth something where the client does not say."""

from genba.serve.lanes.lines import LineService
from genba.serve.limits import Limits


def usual_s(line: LineService | None, limits: Limits) -> float:
    """Return the seconds that a request to a line has: more where words are written.

    Args:
        line: None for one that is not there.
        limits: Of the server.
    """
    services = [] if line is None else line.services()
    talks = any(service.model.talks is not None for _, _, service in services)
    return limits.talk_s if talks else limits.deadline_s
