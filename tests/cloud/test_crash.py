from benchmarks.cloud_crash import run


def test_a_companion_killed_under_load_loses_and_repeats_nothing(tmp_path, mosquitto_path):
    found = run(tmp_path, kills=3, longest_s=0.6, seed=7)

    assert found["accepted"] > 0
    bad = ("lost", "judged_twice", "changes_lost", "changes_made_twice", "actions_lost", "unstable_ids")
    assert {name: found[name] for name in bad} == dict.fromkeys(bad, 0)
