"""What chapter 1 says in words about its experiments holds for them."""

import numpy as np
import pytest

from miniserve.course.chapters.ch01_systems_problem import lab


def test_one_request_alone_takes_what_the_step_times_add_up_to():
    step = lab.machine(lab.TEST_HARDWARE).step_time(lab.model(lab.TEST_MODEL))
    alone = lab.at_once(1)
    contexts = range(lab.PROMPT_TOKENS, lab.PROMPT_TOKENS + lab.ANSWER_TOKENS - 1)
    rest = sum(step.base_s + step.per_decode_row_s + step.per_context_token_s * (context + 1) for context in contexts)
    pairs_s = lab.PROMPT_TOKENS * (lab.PROMPT_TOKENS + 1) / 2 * step.per_prefill_pair_s
    assert alone.first_s[0] == pytest.approx(step.base_s + lab.PROMPT_TOKENS * step.per_prefill_token_s + pairs_s)
    assert round(1000 * pairs_s) == 2, "the part that section 8 leaves out"
    assert alone.ends_s == pytest.approx(alone.first_s[0] + rest, rel=0.01)


def test_a_crowd_takes_less_than_one_by_one_and_nearly_all_wait_longer_than_promised():
    crowd, one_by_one = lab.at_once(lab.CROWD), lab.at_once(lab.CROWD, running=1)
    assert one_by_one.ends_s == pytest.approx(lab.CROWD * lab.at_once(1).ends_s, rel=0.01)
    assert crowd.ends_s < one_by_one.ends_s / 3
    assert (round(lab.at_once(1).ends_s, 1), round(crowd.ends_s, -1)) == (0.7, 100), "as the letter has it"
    assert crowd.tokens_per_s > lab.at_once(1).tokens_per_s
    assert np.mean(crowd.first_s > lab.PROMISE_S) > 0.9


def test_the_p99_breaks_the_promise_before_the_mean_does():
    loads = [lab.under_load(rate, 3) for rate in (0.05, 0.5, 1.0, 1.5, 1.75, 2.0)]
    broken = [found.within_share < lab.PROMISED_SHARE for found in loads]
    bad_mean = [found.mean_s > lab.FINE_MEAN_S for found in loads]
    assert broken.index(True) < bad_mean.index(True)


def test_the_day_is_chapter_sixs_and_its_ledger_adds_up_to_its_bill():
    result = lab.larkspur_day()
    assert result.ledger is not None
    assert result.ledger.usd == pytest.approx(result.ledger.billed_usd)
    assert result.ledger.of_account("idle") > 0.1 * result.ledger.usd


def test_without_a_gpu_its_cell_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr("miniserve.engine.kernels.why_not", lambda device: f"no {device} here")
    lab.gpu_crowds()
    assert capsys.readouterr().out == "Skipped: no cuda here. Nothing later needs it.\n"


def test_with_a_gpu_each_crowd_gets_a_row(monkeypatch, capsys):
    """On a CPU in place of the GPU, which needs no other code of the cell's."""
    from miniserve.course.chapters.start_here import lab as start_here

    on_cpu = start_here.small_engine
    monkeypatch.setattr("miniserve.engine.kernels.why_not", lambda device: None)
    monkeypatch.setattr(start_here, "small_engine", lambda *a, device, **k: on_cpu(*a, **k))
    shown = []
    monkeypatch.setattr(lab, "compare", lambda crowds, caption: shown.append(crowds))
    lab.gpu_crowds((1, 3))
    assert {name: len(crowd.last_s) for name, crowd in shown[0].items()} == {"1 at once": 1, "3 at once": 3}
