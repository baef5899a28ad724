"""Keeping secrets out of text that leaves the machine or ends in a log: the one place that knows how they look.

Masking too much costs a word of an error message, masking too little costs a secret. So after a secret's name all is
masked up to the end of its quotes, or to the next space.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote

MASK = "***"

_CREDENTIALS = re.compile(r"//[^/\s]+@")

_SECRET_VARIABLE = re.compile(
    r"secret|token|passw|credential|api_?key|access_?key|account_?key|connection_?string|_sas$|webhook", re.I
)
_SHORTEST = 6
"""Characters of a variable's value from which on it is masked; a shorter one would mask ordinary words."""

_PEM = re.compile(r"-----BEGIN [^-\n]{0,80}-----.*?(?:-----END [^-\n]{0,80}-----|\Z)", re.S)
_JWT = re.compile(r"eyJ[\w-]{5,}={0,2}(?:\.[\w-]*={0,2}){0,4}")

_NAME = (
    r"(?:passw(?:or)?[dt]|pass_?phrase|pwd|secret(?:[_-]?(?:key|id))?|token(?:[_-]?(?:secret|value))?"
    r"|(?:api|access|account|private|shared[_-]?access|encryption|signing|subscription)[_ -]?key"
    r"|shared[_-]?access[_-]?signature|connection[_ -]?string)"
)
_HEADER_NAME = r"(?:(?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]{0,40}(?:key|token|secret))"
_QUOTED = r"(?P<quote>\\{0,3}[\"'])(?:(?!(?P=quote))(?:\\.|[^\n]))*(?:(?P=quote)(?=[\s,;:)\]}&<>\\\"']|\Z)|$)"
"""A quoted value, up to the end of the line if the quotes never end. They may be escaped, where JSON holds a text that
holds JSON."""
_ASSIGNED = r"\\{0,3}[\"']?\]?[ \t]*(?:=>|:=|[:=])[ \t]*"
"""What stands between a name and its value: the name's closing quote, if it has one, then a sign."""
_ALONE = rf"(?im)^([ \t]*(?:- )?[\w.-]{{0,60}}?{_NAME}[ \t]*:"
"""A name at the beginning of a line, as YAML has it."""

_HEADER = re.compile(rf"(?im)(\b{_HEADER_NAME}{_ASSIGNED})(?:{_QUOTED}|[^\n]+)")
_BLOCK = re.compile(rf"{_ALONE}[ \t]+)[|>][-+0-9]*[ \t]*(?:\n[ \t]+[^\n]*)+")
_LINE = re.compile(rf"{_ALONE}[ \t]+)(?![ \t\"'\\])[^\n]+")
_VALUE = re.compile(rf"(?im)({_NAME}{_ASSIGNED})(?:[bruf]{{0,2}}{_QUOTED}|\S+)")
_ELEMENT = re.compile(rf"(?i)(<[\w:.-]{{0,60}}?{_NAME}[^<>]{{0,200}}>)[^<]+")
_SIGNATURE = re.compile(r"(?i)(\b(?:sig|signature)=)\S+")
_OPTION = re.compile(rf"(?im)(--?[\w.-]{{0,60}}?{_NAME}[ \t]+)(?:{_QUOTED}|\S+)")
_BEARER = re.compile(
    r"(?i)(\bbearer[ \t]+)(?!(?:tokens?|auth\w*|realm\S*|schemes?|credentials?|access|and|or|is|was|not)\b)[^\s\"']+"
)
_BASIC = re.compile(r"(\b(?:[Bb]asic|BASIC)[ \t]+)(?=[A-Za-z+/]*(?:[a-z][A-Z]|[0-9=]))[A-Za-z0-9+/]{4,}={0,2}")
"""Base64, not the next word of a sentence."""


def without_credentials(text: str) -> str:
    """`text`, a URL or something that holds one, without the user and password in it."""
    return _CREDENTIALS.sub("//", text)


def without_secrets(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without what looks like a secret (see the patterns above), credentials of URLs, and the values of
    variables that are named like secrets."""
    for value in sorted((v for k, v in environ.items() if _SECRET_VARIABLE.search(k)), key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, MASK).replace(quote(value, safe="", errors="replace"), MASK)
    for pattern in (_PEM, _JWT):
        text = pattern.sub(MASK, text)
    text = without_credentials(text)
    for pattern in (_HEADER, _BLOCK, _LINE, _VALUE, _ELEMENT, _SIGNATURE, _OPTION, _BEARER, _BASIC):
        text = pattern.sub(_masked, text)
    return text


def _masked(found: re.Match[str]) -> str:
    quotes = found.groupdict().get("quote") or ""
    return f"{found[1]}{quotes}{MASK}{quotes}"
