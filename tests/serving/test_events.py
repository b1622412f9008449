import json

import pytest

from serving.events import InvalidEvent
from serving.openai_shape import parse_moderation


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/secret.png"}},
        {"type": "a secret", "text": "a"},
        {"type": "a secret\n - at `$.secret`", "text": "a"},
    ],
)
def test_a_part_that_is_no_text_is_refused_in_words_that_repeat_nothing(part: dict[str, object]) -> None:
    body = json.dumps({"input": [{"type": "text", "text": "fine"}, part]}).encode()

    with pytest.raises(InvalidEvent, match="images are not") as refused:
        parse_moderation(body)

    assert "secret" not in str(refused.value)
    assert "image_url" not in str(refused.value)
    assert str(refused.value).startswith("`input[1].type`")
