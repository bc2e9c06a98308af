"""What a run is: the one answer to "is this the same run?", and to which runs belong together."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from experiments.run.study import Study
from forgetting import arms
from forgetting.settings import overridden, with_defaults

# Known only once a run has begun, so that a run that has not may lack them.
FACTS = ("images", "extractor", "files", "recording")


def identity(study: Study, settings: Mapping[str, Any], **facts: str | None) -> dict[str, Any]:
    """What a run computes from, flat: two runs with the same compute the same.

    settings: flat; what an older run lacks has its default, and what a run of these settings does
    not use is no part of it. facts: the fingerprint of its images, the hash of the extractor that
    measures its samples, the hashes of its users' files, and name and hash of the recording of its
    opponents; None where that is not known.
    """
    arm = settings.get(study.arm)
    of_methods = arms.settings_of(arm, study.models)
    of_study = overridden(study.settings, arms.overrides(arm, study.models))
    whole = with_defaults(settings, {**of_study, **of_methods})
    used = {
        key: whole[key]
        for key, setting in study.settings.items()
        if not setting.incidental and setting.used(whole)
    }
    used |= {key: whole[key] for key in whole if key not in study.settings}
    if arm:
        used[study.arm] = arms.canonical(arm, study.models)
    return {"study": study.name, **used, **{k: v for k, v in facts.items() if v is not None}}


def same(a: Mapping[str, Any], b: Mapping[str, Any], but: Collection[str] = ()) -> bool:
    """Whether two identities agree in all but `but`; a fact that one of them lacks decides
    nothing."""
    unknown = [fact for fact in FACTS if fact not in a or fact not in b]
    keys = (a.keys() | b.keys()) - {*but, *unknown}
    return all(key in a and key in b and a[key] == b[key] for key in keys)


def shared(
    study: Study, whole: Mapping[str, Any], info: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The identity less what tells its arm and seed: what runs share that are compared. On which
    device does not tell them apart: a seed starts and draws the same on each, and precision says
    in how many bits it computes. info: what the run has stored, of users' methods among it."""
    of_all = {key for key, setting in study.settings.items() if not setting.of_arm}
    of_all -= arms.overrides(whole.get(study.arm), study.models).keys()
    for of_user in (info or {}).get("methods", {}).values():
        of_all -= of_user.get("overrides", {}).keys()
    of_all |= {"study", "images", "extractor"}
    return {k: v for k, v in whole.items() if k in of_all - {study.arm, "seed", "device"}}


def arm_name(
    study: Study, whole: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> str:
    """The arm of an identity, with those of its own settings that are not at their default:
    "ssgan(alpha=0.5)", "ewc(weight=10)". Behind a user's file stands the start of its hash.

    defaults: of the settings of users' files.
    """
    arm = whole[study.arm]
    own = {key: s for key, s in study.settings.items() if s.of_arm and key in whole}
    usual = {key: setting.default_in(whole) for key, setting in own.items()}
    usual |= {key: s.default for key, s in arms.settings_of(arm, study.models).items()}
    usual |= defaults or {}
    # Of the last method the name need not be said again.
    others = [
        f"{key.removeprefix(arm.split('+')[-1] + '.')}={whole[key]}"
        for key in usual
        if key in whole and whole[key] != usual[key]
    ]
    if files := whole.get("files"):
        hashes = dict(file.split() for file in files.split(", "))
        words = arm.split("+")
        arm = "+".join(f"{w}@{hashes[w][:4]}" if w in hashes else w for w in words)
    return f"{arm}({', '.join(others)})" if others else arm


def on_any_device(whole: Mapping[str, Any]) -> str:
    """An identity as a text that is equal for runs of the same draws in as many bits, on whichever
    device."""
    return as_text({key: value for key, value in whole.items() if key != "device"})


def as_text(part: Mapping[str, Any]) -> str:
    """An identity, or a part of one, as a text that is equal where it is."""
    return json.dumps(part, sort_keys=True)
