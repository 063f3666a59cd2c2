import torch

from unclip.diffusion.noise import make_generators
from unclip.inference.callbacks import Watcher
from unclip.inference.run_context import Run

CPU = torch.device("cpu")


def test_labels_nest() -> None:
    calls: list[tuple[str, int, int]] = []
    run = Run([], CPU, callback=lambda *call: calls.append(call))
    nested = run.within("region 1 of 2").within(None).within("window 2 of 5")
    for each in (run, nested):
        with each.stage("decoder") as report:
            report.progress(1, 4)
    assert calls == [("decoder", 1, 4), ("region 1 of 2, window 2 of 5, decoder", 1, 4)]


def test_rows_select_and_repeat_generators_and_share_timings() -> None:
    run = Run(make_generators([4, 5, 6]), CPU)
    rows = run.rows([2, 0, 0])
    assert [generator.initial_seed() for generator in rows.generators] == [6, 4, 4]
    assert rows.generators[1] is rows.generators[2] is run.generators[0]
    with rows.stage("prior"):
        pass
    assert run.timings.keys() == {"prior"}


def test_seconds_of_a_stage_that_runs_twice_add_up() -> None:
    run = Run([], CPU, timings={"decoder": 100.0})
    with run.stage("decoder"):
        pass
    assert run.timings["decoder"] > 100


def test_without_a_callback_nothing_is_reported() -> None:
    with Run([], CPU).stage("decoder") as report:
        assert (report.progress, report.observe) == (None, None)


def test_a_watcher_receives_images_but_no_embeddings() -> None:
    seen = []

    class Recorder(Watcher):
        def __call__(self, stage, done, total) -> None:
            pass

        def see(self, stage, images, seeds) -> None:
            seen.append((stage, [image.size for image in images], list(seeds)))

    with Run(make_generators([8]), CPU, callback=Recorder()).stage("decoder") as report:
        report.observe(torch.zeros(1, 16))
        report.observe(torch.zeros(1, 3, 4, 6))
    assert seen == [("decoder", [(6, 4)], [8])]
