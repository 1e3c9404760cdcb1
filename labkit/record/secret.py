"""What looks like a secret: the forms in which services give their keys, and names that say so.

The record is for all to read: no such value may stand in it, and no message may repeat one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# OpenAI and Anthropic, GitHub, Hugging Face, AWS, Slack, Google, GitLab; Stripe, a web token; what goes with a request;
# a private key; the password in an address.
FORM = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-(?:(?:proj|svcacct|admin|ant|or)-[\w-]{16,}|[A-Za-z0-9]{16,})"
    r"|gh[pousr]_[A-Za-z0-9]{12,}|github_pat_\w{12,}|hf_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{12,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{12,}|AIza[\w-]{12,}|glpat-[\w-]{12,})"
    r"|(?<![A-Za-z0-9])(?:[rs]k_(?:live|test)_[A-Za-z0-9]{12,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,})"
    r"|(?i:bearer) [\w.~+/-]{16,}|hooks\.slack\.com/services/\w+/\w+/\w+"
    r"|(?<=[?&]password=)(?![$<{*])[^\s&]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?<=://)[^\s/:@]*:(?![$<{*])[^\s/:@]+(?=@)",
    re.ASCII,
)
# In lower case; every text of one of the forms has one of these. Looking for them takes a hundredth of the time.
_HINTS = (
    "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "hf_", "akia", "xox", "aiza", "glpat-", "k_live_",
    "k_test_", "eyj", "bearer ", "hooks.slack.com", "password=", "private key-----", "://",
)  # fmt: skip
_KEYS = r"api[_-]?keys?|access[_-]?key|private[_-]?key|secrets?(?:[_-]?key)?|passwords?|passwd|passphrase|credentials?"
_OF_TEXT = "".join(f"(?<!{word}_)" for word in "bos cls end eos mask pad sep special start stop unk".split())
_NAMED = rf"(?:^|[^a-z])(?:{_KEYS}|{_OF_TEXT}token)"
KEY_NAME = re.compile(rf"(?:^|[^a-z])(?:{_KEYS})$", re.IGNORECASE)
NAME = re.compile(rf"{_NAMED}$", re.IGNORECASE)
# Files in which programs keep passwords and keys, by their names.
_FILE = re.compile(
    r"\.env(?:\..*)?|.*\.env|[._]netrc|\.(?:pgpass|pypirc|npmrc|htpasswd|git-credentials)|kaggle\.json"
    r"|id_(?:rsa|dsa|ecdsa|ed25519)|.*\.(?:pem|key|p12|pfx|jks|keystore|kdbx|ppk|asc|gpg)",
    re.IGNORECASE,
)
_STEM = re.compile(r"(?:^|[^a-z])(?:keys?$|secrets?(?:$|[^a-z]))", re.IGNORECASE)
# Nothing, tokens of text as `[PAD]` and `</s>`, what refers to a secret: `$KEY`, a path.
NO_KEY = re.compile(r"\Z|[\[<]|\$\{?\w+\}?\Z|[~.]{0,2}(?:/[\w.-]+)+\Z")
LONG_NUMBER = 10_000  # shorter ones under a key's name are flags and counts
_ASSIGNED = re.compile(rf"({_NAMED}[\"']?\s*[:=]\s*)(?:\"[^\"]*\"?|'[^']*'?|[^,}}\]\n]+)", re.IGNORECASE | re.MULTILINE)
_SETTING = re.compile(
    rf"(?:^|[^a-z])(?:{_KEYS})[\"']?[ \t]*[:=][ \t]*([^\s#,}}\]][^#,}}\]\n]*)", re.IGNORECASE | re.MULTILINE
)


def is_secret(name: str, value: Any, names: re.Pattern[str] = NAME) -> bool:
    """Tells whether a value looks like a secret, or anything that it holds does.

    Args:
        name: The value's name; what a mapping holds has its key for one.
        value: A plain value.
        names: Which names make any text a secret; `KEY_NAME` leaves tokens out, which may be pieces of text.
    """
    if isinstance(value, Mapping):
        return any(
            is_secret("", key, names) or is_secret(str(key) if names.search(str(key)) else name, item, names)
            for key, item in value.items()
        )
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(is_secret(name, item, names) for item in value)
    if isinstance(value, str):
        return bool(FORM.search(value) or (names.search(name) and not NO_KEY.match(value)))
    return type(value) is int and abs(value) >= LONG_NUMBER and bool(KEY_NAME.search(name))


def holds_secret(text: str) -> bool:
    """Tells whether a long text, as a file, has a secret in one of its lines."""
    lowered = text.lower()
    hints = [hint for hint in _HINTS if hint in lowered]
    return bool(hints) and any(
        FORM.search(line) for line in text.split("\n") if any(hint in line.lower() for hint in hints)
    )


def names_secret(path: str) -> bool:
    """Tells whether a file has the name of one with a password or key in it: `.env`, `api_key.txt`, `client.pem`."""
    name = path.rpartition("/")[2]
    stem = name.partition(".")[0]
    return bool(_FILE.fullmatch(name) or NAME.search(stem) or _STEM.search(stem))


def assigns_secret(text: str) -> bool:
    """Tells whether a text of settings gives a value to a name that says key or password."""
    return any(not NO_KEY.match(value.strip("\"' \t\r")) for value in _SETTING.findall(text))


def is_secret_default(name: str, value: Any) -> bool:
    """Tells whether the default of a declared parameter looks like a secret."""
    return is_secret(name, value, KEY_NAME)


def masked(text: str) -> str:
    """Returns a text for a message, with stars in place of what looks like a secret."""
    return _ASSIGNED.sub(r"\1***", FORM.sub("***", text))
