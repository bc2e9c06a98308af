"""What the commands' exit codes mean, beside 0 and 1."""

import signal

TRY_LATER = 75  # sysexits.h: stopped by the clock, or held by another process
# Asked to stop, can be gone on with; early on, the signal itself.
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
