"""`spile serve` whose collector never rests: laps follow each other, and what it gave up goes at the next round."""

from __future__ import annotations

from broker.cli.main import main
from feeds.storage import collector

collector.LAP_EVERY = 0.0

if __name__ == "__main__":
    main()
