"""The `text` block and the pipeline that it switches say the same."""

from __future__ import annotations

from dataclasses import fields as settings_fields
from typing import get_args, get_type_hints

import pytest
from pydantic import ValidationError

from runner.asr.portuguese import Settings, describe
from runner.schema.fields import fields
from runner.schema.marks import RESULT
from runner.schema.text import Text


def test_every_switch_of_the_pipeline_is_a_field_with_the_same_choices_and_default() -> None:
    hints, views = get_type_hints(Settings), fields(Text)
    assert list(views) == [switch.name for switch in settings_fields(Settings)]
    for switch in settings_fields(Settings):
        view = views[switch.name]
        assert view.mark is RESULT
        assert view.sentence.endswith(".")
        assert sorted(get_args(hints[switch.name])) == sorted(view.shape["enum"])
        assert switch.default == view.info.default


def test_a_block_becomes_settings() -> None:
    block = Text(language="pt-PT", numbers="keep")
    assert describe(Settings(**block.model_dump()))[0] == "portuguese/1 pt-PT"
    assert Settings(**Text().model_dump()) == Settings()


def test_other_values_are_refused() -> None:
    with pytest.raises(ValidationError):
        Text.model_validate({"case": "title"})
    with pytest.raises(ValidationError):
        Text.model_validate({"number": "keep"})
