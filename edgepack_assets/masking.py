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
_CREDENTIALS_UNENCODED = re.compile(
    r"//[^/\s:@\[\]\"'<>]{0,100}:(?![0-9]{0,5}(?:[/?#\s,;.)]|\Z))(?:[^\s\"'<>]{1,300}|\S[^@\n\"'<>]{0,200})@(?=[\w\[])"
)
"""A password with a slash or a space that should have been encoded. A port after the colon is none."""

_SECRET_VARIABLE = re.compile(
    r"secret|token|passw|credential|api_?key|access_?key|account_?key|connection_?string|_sas$|webhook", re.I
)
_SHORTEST = 6
"""Characters of a variable's value from which on it is masked; a shorter one would mask ordinary words."""

_PEM = re.compile(r"-----BEGIN [^-\n]{0,80}-----.*?(?:-----END [^-\n]{0,80}-----|\Z)", re.S)
_PUTTY = re.compile(r"PuTTY-User-Key-File-.*?(?:Private-MAC:[ \t]*\w+|\Z)|Private-MAC:[ \t]*\w+", re.S)
_PUTTY_LINES = re.compile(r"(Private-Lines:[ \t]*\d+)(?:(?:\r?\n|(?:\\{1,3}[rn])+)[A-Za-z0-9+/=]+(?=[\s\\\"']|\Z))+")
"""The private part of a key of which the beginning was cut off."""
_JWT = re.compile(r"eyJ[\w-]{5,}={0,2}(?:\.[\w-]*={0,2}){0,4}")

_NAME = (
    r"(?:passw(?:or)?[dt](?:s(?![a-z]))?|pass_?phrase|pwd|secret(?:[_-]?(?:key|id))?|token(?:[_-]?(?:secret|value))?"
    r"|(?:api|access|account|private|shared[_-]?access|encryption|signing|subscription|primary|secondary|storage|master"
    r"|auth)[_ -]?key"
    r"|shared[_-]?access[_-]?signature|connection[_ -]?string)"
)
_HEADER_NAME = r"(?:(?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]{0,40}(?:key|token|secret|auth))"
_QUOTED = r"(?P<quote>\\{0,3}[\"'])(?:(?!(?P=quote))(?:\\.|[^\n]))*(?:(?P=quote)(?=[\s,;:)\]}&<>\\\"']|\Z)|$)"
"""A quoted value, up to the end of the line if the quotes never end. They may be escaped, where JSON holds a text that
holds JSON."""
_SIGN = r"(?:=>|->|:=|==|[:=\uff1a])"
_ASSIGNED = rf"\\{{0,3}}(?:[\"']?\]?[ \t\xa0]*{_SIGN}[ \t\xa0]*|[\"'][ \t]*,[ \t]*(?=b?\\{{0,3}}[\"']))"
"""What stands between a name and its value: the name's closing quote, if it has one, then a sign. Between two texts in
quotes it may be a comma."""
_ALONE = rf"([ \t]*(?:- )?\\{{0,3}}[\"']?[\w.-]{{0,60}}?{_NAME}\\{{0,3}}[\"']?[ \t]*:"
"""A name at the beginning of a line, as YAML has it."""
_BEGINNING = re.compile(rf"(?i){_ALONE})(.*)")
_NOTHING = re.compile(r"\s*(?:[&!]\S*\s*)*(?:[|>][-+0-9]*\s*)?(?:#.*)?")
"""What may follow the colon in YAML if the value itself is below."""
_END_OF_PEM = re.compile(r"-----END [^-\n]{0,80}-----")
_BASE64_LINE = re.compile(r"\s*[A-Za-z0-9+/=]+\s*")

_HEADER = re.compile(rf"(?im)(\b{_HEADER_NAME}{_ASSIGNED})(?:{_QUOTED}|[^\n]+)")
_LINE = re.compile(rf"(?im)^{_ALONE}[ \t]+)(?![ \t\"'\\])[^\n]+")
_TRIPLE = re.compile(
    rf"(?is)({_NAME}{_ASSIGNED}[bruf]{{0,2}})(?P<quote>\"{{3}}|'{{3}})(?:(?!\*\*\*).*?(?P=quote)|(?!\*\*\*).*)"
)
_VALUE = re.compile(
    rf"(?im)({_NAME}{_ASSIGNED})(?:[bruf]{{0,2}}{_QUOTED}|[\[{{][ \t]*\\{{0,3}}[\"'\[{{][^\n]*"
    r"|[|>][-+0-9]*[ \t]*\\{1,3}[rn][^\n\"']*\S*|\S+)"
)
_PAIR = re.compile(
    rf"(?im)(\b(?:name|key)[\"']?[ \t]*[:=][ \t]*[\"']?[\w.-]{{0,60}}?{_NAME}[\w.-]{{0,20}}[\"']?,?\s{{0,80}}"
    rf"[\"']?\bvalue[\"']?[ \t]*[:=][ \t]*)(?:{_QUOTED}|\S+)"
)
"""A name and its value under keys of their own, as containers' environments have them."""
_FIELD = re.compile(rf"(?im)(;[ \t]*[\w. -]{{0,60}}?{_NAME}[ \t]*=[ \t]*)(?![\"' \t])[^;\n]+(?=;|$)")
"""In a connection string, where a value may hold spaces."""
_ENCODED = re.compile(rf"(?i)({_NAME}(?:%22)?%(?:25)?3[AD])(?:(?!%(?:25)?26)[^\s&\"'])+")
_ENCODED_CREDENTIALS = re.compile(r"(?i)(%2F%2F)(?:(?!%2F)[^\s/]){1,500}?%40")
_LOGIN = re.compile(r"(?i)(\blogin[ \t]+\S{1,200}\s{1,80}password[ \t]+)\S+")
_USER = re.compile(rf"(?m)((?:^|\s)(?:-u|--user|--proxy-user)(?:[ \t]+|=))(?:{_QUOTED}|[^\s:\"']{{1,200}}:\S+)")
_PASSWORD_OPTION = re.compile(
    rf"(?m)(\b(?:(?:mysql|mariadb)[\w-]{{0,20}}\b[^\n|;&]{{0,300}}?[ \t]-p"
    rf"|(?:sshpass|(?:docker|podman|helm|oras|az)\b[^\n|;&]{{0,100}}?\blogin)\b[^\n|;&]{{0,300}}?[ \t]-p[ \t=]*"
    rf"|redis-cli\b[^\n|;&]{{0,300}}?[ \t]-a[ \t]+))(?:{_QUOTED}|[^\s\"']\S*)"
)
"""Options of one letter: of commands that are known to take a password so."""
_TUPLE = r"[(\[](?:'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|[^()\[\]'\"\n])*(?:[)\]]|$)"
_AUTH_TUPLE = re.compile(rf"(?im)((?:(?<![a-z])auth{_ASSIGNED}|\b(?:HTTP|Proxy)?(?:Basic|Digest)Auth)){_TUPLE}")
_NO_AUTH = (
    r"(?:true|false|yes|no|on|off|none|null|basic|bearer|digest|ntlm|negotiate|required|optional|failed|failure|error"
    r"|anonymous|enabled|disabled|ok|default|oauth2?|sasl|scram[\w-]*|ldap|pam)\b"
)
_AUTH = re.compile(
    rf"(?im)((?<![a-z])_?auth{_ASSIGNED})(?![bruf]{{0,2}}\\{{0,3}}[\"']?{_NO_AUTH})(?:[bruf]{{0,2}}{_QUOTED}|[^\s(\[{{\"']\S*)"
)
"""As in a file of npm's or docker's."""
_CODE = re.compile(r"(?i)((?:[?&]|%3F|%26)(?:code|key)(?:=|%3D))(?![0-9]{1,3}(?![\w.~+/-]))(?:(?!%26)[^\s&\"'#])+")
"""Of a sign-in, or an Azure function; not a status such as 404."""
_PLAIN_WORD = (
    r"(?:(?-i:[a-z]{2,}(?:ed|ing))|a|an|the|not|no|never|too|only|also|now|still|already|always|as|in|on|at|of|for|from|by|with"
    r"|and|or|but|if|to|that|this|what|wrong|invalid|valid|empty|bad|weak|unset|unknown|absent|incorrect|correct|set"
    r"|known|there|here|none|null|given|sent|kept|held|read|right|safe|secret|optional|mandatory|necessary|about|longer"
    r"|short|long|shorter|old|new|out|up|over|under|more|less|one|part|used|lost|gone|rejected|your|its|their|our|my"
    r"|hidden|taken|written|shown|found|left|good|bound|available|unavailable|different|same|equal|below|above)"
)
_SENTENCE = re.compile(
    rf"(?i)((?<![a-z]){_NAME}(?:[ \t]+(?:for|of|to|from)(?:[ \t]+\S{{1,60}}){{1,2}})?[ \t]+"
    rf"(?:is|was|are|ist|war|lautet)[ \t:]+)(?!{_PLAIN_WORD}(?:[\s.,;:!?)\"']|\Z))(?![\"'])\S+"
)
"""A secret that a person told; what ordinarily follows these words is none."""
_SPOKEN = re.compile(
    rf"(?i)((?<![\w-]){_NAME}[ \t]+)"
    r"(?!(?:utf-?\d+|base-?\d+|sha-?\d+|md\d|oauth\d?|python\d?|v?\d+(?:\.\d+)*|x\d+)\b|[\w.-]+/|AADSTS)"
    r"(?=[^\s()\[\]{}<>\"'`,:;=/]{5,}(?:[\s.,;:!?)\"']|\Z))"
    r"(?=[^\s,:;]*[A-Za-z])(?=[^\s,:;]*[0-9]|[^\s.,;:!?]*[@#$%^&*+~!][^\s,:;]*\w)[^\s\"'`<>]+"
)
"""A secret right after its name, as people write it: letters mixed with digits or signs, which no word is."""
_NAMED = re.compile(rf"(?im)((?<![a-z]){_NAME}[ \t]+(?:is[ \t]+)?){_QUOTED}")
_KNOWN = re.compile(
    r"\b()(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{15,}|xox[abeoprs]-[\w-]{10,}|(?:AKIA|ASIA)[0-9A-Z]{16}\b)"
)
"""Tokens that tell by their beginning what they are."""
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
    return _CREDENTIALS_UNENCODED.sub("//", _CREDENTIALS.sub("//", text))


def without_secrets(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without what looks like a secret (see the patterns above), credentials of URLs, and the values of
    variables that are named like secrets."""
    for value in sorted((v for k, v in environ.items() if _SECRET_VARIABLE.search(k)), key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, MASK).replace(quote(value, safe="", errors="replace"), MASK)
    for pattern in (_PEM, _PUTTY, _JWT):
        text = pattern.sub(MASK, text)
    text = _without_lines_below(without_credentials(text))
    for pattern in _PATTERNS:
        text = pattern.sub(_masked, text)
    return text


_PATTERNS = (_PUTTY_LINES, _AUTH_TUPLE, _AUTH, _HEADER, _PAIR, _FIELD, _TRIPLE, _LINE, _VALUE, _ELEMENT, _SIGNATURE,
             _ENCODED, _ENCODED_CREDENTIALS, _OPTION, _PASSWORD_OPTION, _LOGIN, _USER, _NAMED, _SENTENCE, _SPOKEN,
             _CODE, _BEARER, _BASIC, _KNOWN)  # fmt: skip


def _without_lines_below(text: str) -> str:
    """`text` without the further lines of values that begin after a name: YAML's blocks, lists and continued lines, and
    nested JSON. Also without the end of a key of which the beginning was cut off."""
    kept: list[str] = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line, at = lines[at], at + 1
        if _END_OF_PEM.search(line):
            while kept and _BASE64_LINE.fullmatch(kept[-1]):
                kept.pop()
            kept.append(_END_OF_PEM.sub(MASK, line))
            continue
        kept.append(line)
        beginning = _BEGINNING.match(line)
        if beginning is None:
            continue
        is_below = _NOTHING.fullmatch(beginning[2]) is not None
        # The column of the name itself: the dash of a list item counts as indentation.
        column = len(beginning[1]) - len(beginning[1].lstrip(" \t-"))
        end, blanks = at, 0
        while end + blanks < len(lines):
            below = lines[end + blanks]
            indent = len(below) - len(below.lstrip())
            if not below.strip():
                blanks += 1
            elif indent > column or (is_below and indent == column and below.lstrip().startswith("- ")):
                end, blanks = end + blanks + 1, 0
            else:
                break
        if end > at:
            at = end
            kept[-1] = f"{beginning[1]} {MASK}" if is_below else line
    return "\n".join(kept)


def _masked(match: re.Match[str]) -> str:
    quotes = match.groupdict().get("quote") or ""
    return f"{match[1]}{quotes}{MASK}{quotes}"
