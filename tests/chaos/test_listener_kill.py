"""A listener is killed while it works, again and again: with its place in the service or in its own file, what it
has written down in the end is everything."""

from __future__ import annotations

from running import until
from trials import Trial
from worlds import in_worlds


@in_worlds("embedded", long=("external",))
def test_listeners_that_are_killed_at_work_miss_nothing(trial: Trial) -> None:
    trial.process_over("mqtt", "region/Europe", "tags/#", cursor=True)
    trial.process_over("http", cursor=False)
    trial.process_over("http", "region/+", cursor=True)
    trial.writes_over("http")
    trial.writes_over("mqtt")
    for _ in range(4):
        for process in trial.processes:
            until(lambda each=process: each.at_work, "a listener at work")  # type: ignore[misc]
        trial.goes_on(trial.luck.randint(1, 40))
        for process in trial.processes:
            process.kill()
        trial.goes_on(trial.luck.randint(20, 60))
        for process in trial.processes:
            process.start()
    trial.holds()
