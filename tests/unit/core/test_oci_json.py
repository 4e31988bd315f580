"""Strict reading of a bundle."""

import pytest

from extsloader.model.reasons import Code
from tests.fakes.bundles import refused


class TestParse:
    @pytest.mark.parametrize(
        ("config", "part"),
        [
            ("", "is not usable JSON"),
            ("[]", "must be an object"),
            ('{"a": 1, "a": 2}', "key 'a' occurs twice"),
            ('{"a": NaN}', "number 'NaN' is not whole"),
            ('{"a": 1e999}', "is not whole"),
            ('{"a": %s}' % ("9" * 5000), "number of 5000 digits"),
            ("[" * 100_000, "is nested deeper"),
            ('{"a":' * 40 + "1" + "}" * 40, "is nested deeper"),
            ('{"a": "\\u0000"}', "holds NUL"),
            ('{"a": "\\ud800"}', "half a character"),
            ("\ufeff{}", "is not usable JSON"),
            (" " * (257 << 10), "is longer than"),
        ],
    )
    def test_what_is_no_clean_json_is_refused(self, config: str, part: str) -> None:
        problem = refused(config)
        assert problem.code is Code.BUNDLE
        assert part in problem.message
