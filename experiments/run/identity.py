"""What a run is: the one answer to "is this the same run?", and to which runs belong together."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from experiments.run.study import Study
from forgetting.settings import with_defaults

# Known only once a run has begun, so that a run that has not may lack them.
FACTS = ("images", "extractor")


def identity(study: Study, settings: Mapping[str, Any], **facts: str | None) -> dict[str, Any]:
    """What a run computes from, flat: two runs with the same compute the same.

    settings: flat; what an older run lacks has its default, and what a run of these settings does
    not use is no part of it. facts: the fingerprint of its images and the hash of the extractor
    that measures its samples; None where that is not known.
    """
    whole = with_defaults(settings, study.settings)
    used = {
        key: whole[key]
        for key, setting in study.settings.items()
        if not setting.incidental and setting.used(whole)
    }
    return {"study": study.name, **used, **{k: v for k, v in facts.items() if v is not None}}


def same(a: Mapping[str, Any], b: Mapping[str, Any], but: Collection[str] = ()) -> bool:
    """Whether two identities agree in all but `but`; a fact that one of them lacks decides
    nothing."""
    unknown = [fact for fact in FACTS if fact not in a or fact not in b]
    keys = (a.keys() | b.keys()) - {*but, *unknown}
    return all(key in a and key in b and a[key] == b[key] for key in keys)


def shared(study: Study, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The identity less what tells its arm and seed: what runs share that are compared."""
    own = {key for key, setting in study.settings.items() if setting.of_arm}
    return {k: v for k, v in whole.items() if k not in own | {study.arm, "seed"}}


def arm_name(study: Study, whole: Mapping[str, Any]) -> str:
    """The arm of an identity, with those of its own settings that are not at their default:
    "ssgan(alpha=0.5)"."""
    others = []
    for key, setting in study.settings.items():
        if setting.of_arm and key in whole and whole[key] != setting.default_in(whole):
            others.append(f"{key}={whole[key]}")
    return f"{whole[study.arm]}({', '.join(others)})" if others else str(whole[study.arm])


def as_text(part: Mapping[str, Any]) -> str:
    """An identity, or a part of one, as a text that is equal where it is."""
    return json.dumps(part, sort_keys=True)
