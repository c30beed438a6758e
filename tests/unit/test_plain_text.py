"""Caption and lyrics: the same text by every way in, without what files and clipboards add to it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.plain_text import LONGEST_TEXT, plain_text
from acestep.request import Request
from acestep.thinking import Thinking
from acestep.ui.form import Form, form_request

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\v\f\x85\u2028\u2029\ufeff"), max_size=30
)


@given(
    text=TEXTS,
    ends=st.sampled_from(["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"]),
    mark=st.sampled_from(["", "\ufeff", "\ufeff\ufeff", "\0"]),
)
def test_marks_and_line_ends_of_files_make_no_difference(text: str, ends: str, mark: str) -> None:
    written = mark + text.replace("\n", f"{mark}{ends}")
    assert plain_text("lyrics", written) == text
    assert plain_text("lyrics", text) == text


@pytest.mark.parametrize("field", ["caption", "lyrics"])
def test_the_page_python_and_json_read_a_text_alike(field: str) -> None:
    values = {"caption": "x", field: "\ufeffla\r\nla"}
    requests = (
        Request(**values),
        msgspec.json.decode(msgspec.json.encode(values), type=Request),
        form_request(Form(**values), lambda _: pytest.fail("no file is read")),
    )
    assert {getattr(request, field) for request in requests} == {"la\nla"}


def test_a_text_that_is_too_long_is_refused_by_its_name() -> None:
    text = "x" * (LONGEST_TEXT + 1)
    for field in ("caption", "lyrics"):
        with pytest.raises(ValueError, match=rf"{field} has .* shorten it"):
            Request(**{"caption": "x"} | {field: text})
    with pytest.raises(ValueError, match=r"negative prompt has .* shorten it"):
        Thinking(negative=text)
