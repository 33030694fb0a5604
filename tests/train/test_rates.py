"""`bertjax.train.rates`: real tokens, all devices, and no rate without a step."""

from bertjax.train import rates


def test_rates_count_real_tokens(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(rates.time, "monotonic", lambda: now[0])
    rate = rates.Rates(flops=2e9, peak=2.0)
    rate.add(tokens=300, slots=400, wait=0.5)
    rate.add(tokens=100, slots=400, wait=0.5)
    now[0] += 4.0
    values = rate.take()
    assert values["tokens_per_second"] == 100.0 and values["slots_per_second"] == 200.0
    assert values["mfu"] == 100.0 * 2e9 / 2e12 and values["data_wait"] == 0.25
    assert rates.Rates(flops=1.0, peak=0.0).take()["mfu"] is None


def test_without_a_step_there_is_no_rate():
    assert set(rates.Rates(flops=1.0, peak=1.0).take().values()) == {None}
