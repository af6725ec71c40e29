"""The one place that knows about devices."""

import pytest
import torch

import metarl
from metarl import ConfigError, device
from metarl.agents import MamlTrpo
from metarl.envs import make


def test_devices_that_do_not_exist_are_refused_by_name() -> None:
    assert device.resolve("cpu").type == "cpu"
    for name in ("tpu", "meta", "cuda:no"):
        with pytest.raises(ConfigError, match=name):
            device.resolve(name)


def test_chunks_cover_all_tasks_once_and_fit_the_cache() -> None:
    cpu = torch.device("cpu")
    for tasks, steps in ((7, 100), (20, 2000), (3, 10**6), (1, 1)):
        places = [i for s in device.chunks(tasks, steps, cpu) for i in range(tasks)[s]]
        assert places == list(range(tasks))
    assert len(device.chunks(20, 2000, cpu)) == 10
    assert len(device.chunks(20, 400, cpu)) == 2
    assert device.chunks(20, 2000, torch.device("cuda")) == [slice(0, 20)]


def test_mapping_keeps_the_order_and_passes_errors_on() -> None:
    assert device.map_tasks(lambda x: x * x, list(range(50))) == [x * x for x in range(50)]
    with pytest.raises(ZeroDivisionError):
        device.map_tasks(lambda x: 1 // x, [1, 0])


def test_one_thread_puts_the_number_back_even_after_an_error() -> None:
    seen = []

    @device.one_thread()
    def fail() -> None:
        seen.append(torch.get_num_threads())
        raise KeyError

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError):
            fail()
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.gpu
def test_the_whole_loop_stays_on_the_gpu() -> None:
    family = make("navigation/maml2017", "cuda")
    rng = metarl.generator(0, "cuda")
    agent = MamlTrpo(family.observation_space, family.action_space, rng)
    history = metarl.train(family, agent, rng, iterations=2, rounds=(4, 4), meta_batch_size=3)
    assert len(history) == 2
    assert agent.meta_parameters.device.type == "cuda"
    assert metarl.evaluate(family, agent, rng, rounds=(4, 4)).returns[0].device.type == "cuda"
