"""Adagrad's rate as Kingma & Welling 2013 have it: of .01, .02 and .1 the best on the first iterations of training."""

import dataclasses
from typing import Any

from experiments.reproduce.job import Job

RATES = (0.01, 0.02, 0.1)


def chosen(
    job: Job, name: str, algorithm: Any, config: Any, dataset: Any, objective: tuple[str, ...] = ("elbo",)
) -> Any:
    """The config with the rate whose `objective`, a sum of training metrics, is highest; one that diverges is out.

    Means over the second half of the first iterations, of the first seed. Nothing but training data decides.
    """
    steps = job.choose(4, 500, 500)

    def reached() -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for rate in RATES:
            one = job.fit(
                f"{name}-rate-{rate}", algorithm, at_rate(config, rate), dataset, steps=steps, seeds=job.seeds[:1]
            )
            curves = [one.curve(metric) for metric in objective]
            late = curves[0][0] > steps // 2
            found[str(rate)] = float(sum(values[0, late].mean() for _, values in curves)) if one.seeds else None
        return found

    said = {rate: value for rate, value in job.kept(f"{name}-rates", reached).items() if value is not None}
    if not said:
        raise ValueError(f"{name} diverges within {steps} steps at every rate of {', '.join(map(str, RATES))}.")
    best = max(said, key=lambda rate: said[rate])
    job.say(f"{name}: Adagrad's rate is {best}")
    return at_rate(config, float(best))


def at_rate(config: Any, rate: float) -> Any:
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=rate))
