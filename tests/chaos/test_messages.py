"""Messages on their way are dropped, doubled and delayed, in both directions: requests and answers, streams and
credit."""

from __future__ import annotations

from trials import Trial
from worlds import in_worlds


@in_worlds("embedded", long=("external",))
def test_messages_dropped_doubled_and_delayed_change_nothing(trial: Trial) -> None:
    trial.subscribes()
    trial.listens_over("mqtt", meddled=True)
    trial.listens_over("mqtt", "region/Europe", "tags/+/a", meddled=True, cursor="europe")
    trial.listens_over("mqtt", "_id/#", meddled=True)
    trial.writes_over("mqtt", meddled=True)
    trial.writes_over("mqtt", meddled=True)
    trial.writes_over("http", pause_s=0.02)
    trial.goes_on(200)
    for each in trial.writers[:2]:
        assert each.repeats
    trial.holds()
    assert all(sum(getattr(each, fate) for each in trial.meddled) for fate in ("dropped", "doubled", "delayed"))
