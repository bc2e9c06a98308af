"""Whether a server answers, without ever hanging the start."""

import http.client
import threading
import urllib.request


def answers(url: str, seconds: float) -> bool:
    """Whether a HEAD request to `url` succeeds within `seconds`.

    In a thread, because looking up a host's name has no time limit of its own.
    """
    found = []

    def look() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                found.append(answer.status == 200)
        except (OSError, ValueError, http.client.HTTPException):
            pass

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(found and found[0])
