"""What a refusal of a file must be: one sentence."""

import pytest
from neuralreg import io
from neuralreg.job import RegistrationError


def fails(path, *words: str, read=io.read_image) -> None:
    """Reading the file is refused in one sentence, which holds the words."""
    with pytest.raises(RegistrationError) as raised:
        read(path)
    sentence = str(raised.value)
    assert "\n" not in sentence and sentence.endswith(".")
    for word in words:
        assert word in sentence, sentence
