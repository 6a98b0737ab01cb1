"""Log settings: shown, changed, and changed back."""

from .case import Case, get, one, post

_PATH = "/v2/logging"

_REFUSED = (
    {"log_warning": "x"},
    {"log_error": 1},
    {"log_format": "nope"},
    {"log_format": 3},
    {"log_file": "/tmp/x.log"},
    {"log_file": ""},
    {"log_file": 3},
    {"log_verbose_level": -1},
    {"log_verbose_level": "1"},
    {"log_verbose_level": 2.5},
    b"",
    b"junk",
)
_ACCEPTED = ({}, [], {"nope": 1}, {"log_info": True, "log_verbose_level": 0, "log_format": "default"})

CASES: list[Case] = [
    one("log settings", get(_PATH)),
    *(Case(f"log settings: {body!r}", (post(_PATH, body), get(_PATH))) for body in (*_REFUSED, *_ACCEPTED)),
    *(
        Case(f"log settings for a while: {body!r}", (post(_PATH, body), get(_PATH), post(_PATH, back), get(_PATH)))
        for body, back in (
            ({"log_info": False}, {"log_info": True}),
            ({"log_warning": False, "log_error": False}, {"log_warning": True, "log_error": True}),
            *(({"log_verbose_level": level}, {"log_verbose_level": 0}) for level in (1, 2**31, 2**32 + 1, 2**64 - 1)),
            ({"log_format": "ISO8601"}, {"log_format": "default"}),
        )
    ),
]
