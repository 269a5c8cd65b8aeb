"""What a run says reaches who looks at its process, and once the driver that asks for its outcome."""

from harness.engine.saying import say
from harness.engine.session import LocalSession
from harness.plan.studies import Outcome
from harness.tuning.faults import attempt


def test_what_is_said_is_printed_and_travels_with_the_outcome_of_its_run_alone(capsys):
    say("before any run")

    def talks(payload, session):
        say(f"{payload} is damaged")
        if payload == "b":
            raise ValueError("b")
        return Outcome("done", 0.5)

    outcomes = [attempt(talks, payload, LocalSession()) for payload in ("a", "b")]
    assert [(o.status, o.notes) for o in outcomes] == [("done", ("a is damaged",)), ("failed", ("b is damaged",))]
    assert capsys.readouterr().out.splitlines() == ["before any run", "a is damaged", "b is damaged"]
    assert Outcome(**outcomes[0].to_dict()).objective == 0.5
