"""An external broker is killed while the service publishes: it is told again what it did not acknowledge."""

from __future__ import annotations

from running import until
from trials import Trial
from worlds import in_worlds


@in_worlds("external")
def test_a_broker_that_is_killed_is_told_everything_that_it_did_not_acknowledge(trial: Trial) -> None:
    trial.everyone()
    for _ in range(2):
        trial.goes_on(trial.luck.randint(20, 80))
        trial.world.kill_broker()
        until(lambda: all(plain.listening for plain in trial.subscribers), "the subscribers to be back")
    trial.goes_on(60)
    trial.holds()


@in_worlds("external")
def test_a_broker_that_is_away_stops_nothing_but_the_publishing(trial: Trial) -> None:
    trial.everyone()
    patient = trial.writes_over("http", answer_s=60.0)  # the others ask again where a disk is slow
    trial.goes_on(40)
    trial.world.kill_broker(away=lambda: trial.goes_on(60))
    until(lambda: all(plain.listening for plain in trial.subscribers), "the subscribers to be back")
    trial.goes_on(60)
    trial.holds()
    assert not patient.repeats
